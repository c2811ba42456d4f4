//! From citations to requirements.

use std::collections::{BTreeMap, BTreeSet};

use super::CitedFile;
use super::citation::{Citation, Place};
use super::requirement::{Document, Excuse, Requirement};
use super::scan::Role;

/// All links, and what leads nowhere.
pub(super) struct Linked {
    /// For each document, for each of its requirements.
    pub(super) requirements: Vec<Vec<Links>>,
    /// Citations of a listed RFC that no requirement answers to, each with where it is.
    pub(super) unlisted: BTreeSet<String>,
}

/// What cites one requirement: names of items by file. The file itself has an empty name.
#[derive(Default)]
pub(super) struct Links {
    pub(super) code: BTreeMap<String, BTreeSet<String>>,
    pub(super) tests: BTreeMap<String, BTreeSet<String>>,
}

/// How far a requirement is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// There is code, and a test that shows it.
    Done,
    /// See its reason.
    Excused(Excuse),
    /// With what is missing.
    Open(&'static str),
}

impl Links {
    pub(super) fn status(&self, requirement: &Requirement) -> Status {
        match (requirement.status, self.code.is_empty(), self.tests.is_empty()) {
            (Some(excuse), ..) => Status::Excused(excuse),
            (None, false, false) => Status::Done,
            (None, false, true) => Status::Open("no test"),
            (None, true, false) => Status::Open("no code says that it does it"),
            (None, true, true) => Status::Open("neither code nor test"),
        }
    }
}

/// Links every requirement to the items that cite it.
pub(super) fn link(documents: &[Document], files: &[CitedFile]) -> Linked {
    let index = Index::new(documents);
    let mut requirements: Vec<Vec<Links>> = documents
        .iter()
        .map(|document| document.requirements.iter().map(|_| Links::default()).collect())
        .collect();
    let mut unlisted = BTreeSet::new();
    for (file, item) in files.iter().flat_map(|file| file.items.iter().map(move |item| (file, item))) {
        for citation in &item.citations {
            let meant = index.find(citation);
            if meant.is_empty() && index.lists(citation) {
                unlisted.insert(format!("{citation}: {} {}", file.path, item.name));
            }
            for (document, requirement) in meant {
                let links = &mut requirements[document][requirement];
                let by_file = match item.role {
                    Role::Code => &mut links.code,
                    Role::Test => &mut links.tests,
                    Role::Support => continue,
                };
                by_file.entry(file.path.clone()).or_default().insert(item.name.clone());
            }
        }
    }
    Linked { requirements, unlisted }
}

/// Document and requirement, by their places in the lists.
type Position = (usize, usize);

struct Index {
    entries: Vec<(Citation, Position)>,
    rfcs: BTreeSet<u32>,
}

impl Index {
    fn new(documents: &[Document]) -> Self {
        let mut entries = Vec::new();
        for (d, document) in documents.iter().enumerate() {
            for (r, requirement) in document.requirements.iter().enumerate() {
                entries.extend(requirement.cited_by(document.rfc).into_iter().map(|cited| (cited, (d, r))));
            }
        }
        Self { entries, rfcs: documents.iter().map(|document| document.rfc).collect() }
    }

    /// The requirements that a citation means: those named exactly, else those of the section that it lies in.
    fn find(&self, citation: &Citation) -> Vec<Position> {
        let exact = self.positions(|entry| entry == citation);
        match citation {
            Citation::Place(place) if exact.is_empty() => self.around(place),
            _ => exact,
        }
    }

    /// The requirements of the smallest listed section that a place lies in.
    fn around(&self, place: &Place) -> Vec<Position> {
        let mut section = place.section.as_str();
        while !section.is_empty() {
            let around = Citation::Place(Place { rfc: place.rfc, section: section.to_owned(), part: None });
            let found = self.positions(|entry| *entry == around);
            if !found.is_empty() {
                return found;
            }
            section = section.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
        Vec::new()
    }

    fn positions(&self, is_meant: impl Fn(&Citation) -> bool) -> Vec<Position> {
        self.entries.iter().filter(|(entry, _)| is_meant(entry)).map(|(_, position)| *position).collect()
    }

    /// Whether a citation is of an RFC that has a list.
    fn lists(&self, citation: &Citation) -> bool {
        match citation {
            Citation::Id(_) => true,
            Citation::Place(place) => self.rfcs.contains(&place.rfc) && !place.section.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{requirement, scan};
    use super::*;

    const LIST: &str = "
rfc = 8985
title = 'RACK'
[[requirement]]
id = '§6.2'
level = 'algorithm'
text = 'a'
[[requirement]]
id = '§6.2 step 4'
level = 'MUST'
text = 'b'
[[requirement]]
id = '§6.2.1'
level = 'MAY'
text = 'c'
cited_as = ['RFC 1122', 'MUST-1']
";

    /// Which of the three are cited by a comment.
    fn cited(comment: &str) -> Vec<bool> {
        let documents = [requirement::parse(LIST).unwrap()];
        let text = format!("/// {comment}\nfn f() {{}}\n");
        let files = [CitedFile { path: "a.rs".into(), items: scan::items(&text, false) }];
        link(&documents, &files).requirements[0].iter().map(|links| !links.code.is_empty()).collect()
    }

    #[test]
    fn the_closest_entry_is_meant() {
        assert_eq!(cited("RFC 8985 §6.2"), [true, false, false]);
        assert_eq!(cited("RFC 8985 §6.2 step 4"), [false, true, false]);
        assert_eq!(cited("RFC 8985 §6.2 step 5"), [true, false, false]);
        assert_eq!(cited("RFC 8985 §6.2.1"), [false, false, true]);
        assert_eq!(cited("RFC 8985 §6.2.2"), [true, false, false]);
        assert_eq!(cited("RFC 8985 §6"), [false, false, false]);
        assert_eq!(cited("RFC 1122"), [false, false, true]);
        assert_eq!(cited("RFC 1122 §4"), [false, false, false]);
        assert_eq!(cited("MUST-1"), [false, false, true]);
    }

    #[test]
    fn what_is_not_listed_is_told() {
        let documents = [requirement::parse(LIST).unwrap()];
        let text = "// RFC 8985 §9, RFC 1 §1, MUST-99\n";
        let files =
            [CitedFile { path: "a.rs".into(), items: scan::items(&format!("{text}fn f() {{}}"), false) }];
        let unlisted: Vec<_> = link(&documents, &files).unlisted.into_iter().collect();
        assert_eq!(unlisted, ["MUST-99: a.rs f", "RFC 8985 §9: a.rs f"]);
    }

    #[test]
    fn done_takes_code_and_a_test() {
        let requirement = &requirement::parse(LIST).unwrap().requirements[0];
        let some = || BTreeMap::from([("a.rs".to_owned(), BTreeSet::new())]);
        let links = |code, tests| Links { code, tests };
        assert_eq!(links(some(), some()).status(requirement), Status::Done);
        assert_eq!(links(some(), BTreeMap::new()).status(requirement), Status::Open("no test"));
        assert!(matches!(links(BTreeMap::new(), some()).status(requirement), Status::Open(_)));
    }
}
