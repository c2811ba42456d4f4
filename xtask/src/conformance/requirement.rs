//! The requirements, as `docs/conformance/*.toml` lists them in our own words.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::citation::{self, Citation};

/// One RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) rfc: u32,
    pub(super) title: String,
    /// What to know of the whole list.
    pub(super) note: Option<String>,
    #[serde(rename = "requirement")]
    pub(super) requirements: Vec<Requirement>,
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirement {
    /// RFC 9293's own, or the section, with the step if it has steps.
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) text: String,
    /// Where it is, if the id does not say.
    pub(super) section: Option<String>,
    /// Why it is not done as written, or does not concern us.
    pub(super) status: Option<Excuse>,
    pub(super) reason: Option<String>,
    /// Other citations that mean this rule, such as the RFC that a newer one has replaced.
    #[serde(default)]
    pub(super) cited_as: Vec<String>,
}

/// How strongly the RFC puts it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
    #[serde(rename = "SHOULD")]
    Should,
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    #[serde(rename = "RECOMMENDED")]
    Recommended,
    #[serde(rename = "MAY")]
    May,
    /// Prescribed by what the RFC describes, without one of the capital words.
    #[serde(rename = "algorithm")]
    Algorithm,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
            Self::Recommended => "RECOMMENDED",
            Self::May => "MAY",
            Self::Algorithm => "algorithm",
        }
    }

    /// Whether it has to be done, or to have a reason.
    pub(super) fn binds(self) -> bool {
        self != Self::May
    }
}

/// What stands in place of code and a test.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Excuse {
    /// We do it otherwise, or not, on purpose.
    Exception,
    /// It is about something that we are not, or have not.
    NotApplicable,
}

impl Requirement {
    /// The citations that mean this rule: its id, and what else is listed.
    pub(super) fn cited_by(&self, rfc: u32) -> Vec<Citation> {
        let ids = std::iter::once(&self.id).chain(&self.cited_as);
        ids.flat_map(|text| citation::in_text(text, Some(rfc))).collect()
    }

    fn check(&self, rfc: u32) -> Result<()> {
        let id = &self.id;
        ensure!(citation::in_text(id, Some(rfc)).len() == 1, "{id} is neither an id nor a section");
        for other in &self.cited_as {
            ensure!(!citation::in_text(other, Some(rfc)).is_empty(), "{id}: {other} is no citation");
        }
        match (self.status, &self.reason) {
            (Some(_), None) => bail!("{id} has a status and no reason"),
            (None, Some(_)) => bail!("{id} has a reason and no status"),
            _ => Ok(()),
        }
    }
}

/// Reads all lists in a directory, in the order of the RFCs' numbers, RFC 9293 first.
pub(super) fn read(directory: &Path) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let listing = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in listing {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path)?;
            documents.push(parse(&text).with_context(|| format!("in {}", path.display()))?);
        }
    }
    // The heart first, then by number.
    documents.sort_by_key(|document| (document.rfc != 9293, document.rfc));
    Ok(documents)
}

pub(super) fn parse(text: &str) -> Result<Document> {
    let document: Document = toml::from_str(text)?;
    let mut ids = BTreeSet::new();
    for requirement in &document.requirements {
        requirement.check(document.rfc)?;
        ensure!(ids.insert(&requirement.id), "{} is there twice", requirement.id);
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(fields: &str) -> Result<Document> {
        parse(&format!("rfc = 9293\ntitle = 't'\n[[requirement]]\nlevel = 'MUST'\ntext = 't'\n{fields}"))
    }

    #[test]
    fn an_excuse_needs_a_reason() {
        assert!(one("id = 'MUST-1'").is_ok());
        assert!(one("id = 'MUST-1'\nstatus = 'exception'").is_err());
        assert!(one("id = 'MUST-1'\nreason = 'because'").is_err());
        assert!(one("id = '§3.1 step 2'\nstatus = 'not-applicable'\nreason = 'because'").is_ok());
    }

    #[test]
    fn an_id_can_be_cited() {
        assert!(one("id = 'somewhere'").is_err());
        assert!(one("id = 'MUST-1'\ncited_as = ['nothing']").is_err());
        let document = one("id = 'MUST-1'\ncited_as = ['RFC 6093 §6', '§3.8.5']").unwrap();
        assert_eq!(document.requirements[0].cited_by(9293).len(), 3);
    }

    #[test]
    fn ids_are_unique() {
        let twice = "id = 'MUST-1'\n[[requirement]]\nid = 'MUST-1'\nlevel = 'MAY'\ntext = 't'";
        assert!(one(twice).is_err());
    }
}
