//! `cargo xtask conformance`: every requirement of the RFCs that we follow, the code that does it and the test that shows
//! it, in `docs/conformance.md`. Requirements are data (`docs/conformance/*.toml`); the links come from the citations in
//! the sources.

mod citation;
mod link;
mod render;
mod requirement;
mod scan;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use self::link::Linked;
use self::requirement::Document;
use crate::paths;
use crate::tidy::source;

const LISTS: &str = "docs/conformance";
/// What it writes, from the root.
pub(crate) const OUTPUT: &str = "docs/conformance.md";

/// Where code and tests are that can cite.
const SOURCES: [&str; 3] = ["stack-common", "stack-ebpf", "stack-user"];

/// Arguments of `cargo xtask conformance`.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail if the document is out of date, or a rule that binds has neither code and test nor a reason
    #[arg(long)]
    check: bool,
    /// Also tell what is cited in the sources and is no listed requirement
    #[arg(long)]
    unlisted: bool,
}

/// Writes the document, or checks it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = paths::workspace();
    let documents = requirement::read(&root.join(LISTS))?;
    let linked = link::link(&documents, &cited_files(root)?);
    let text = render::document(&documents, &linked);
    if args.unlisted {
        linked.unlisted.iter().for_each(|unlisted| println!("{unlisted}"));
    }
    let open = open(&documents, &linked);
    let output = root.join(OUTPUT);
    if !args.check {
        fs::write(&output, text).with_context(|| format!("cannot write {}", output.display()))?;
        println!("{OUTPUT}: {} open", open.len());
        return Ok(ExitCode::SUCCESS);
    }
    for requirement in &open {
        println!("{requirement}");
    }
    let is_current = fs::read_to_string(&output).is_ok_and(|current| current == text);
    if !is_current {
        println!("{OUTPUT} is not what the sources say: run `cargo xtask conformance`, and commit it");
    }
    Ok(if is_current && open.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rules that bind and are open, each with what is missing.
fn open(documents: &[Document], linked: &Linked) -> Vec<String> {
    let mut open = Vec::new();
    for (document, links) in documents.iter().zip(&linked.requirements) {
        for (requirement, links) in document.requirements.iter().zip(links) {
            if let link::Status::Open(missing) = links.status(requirement)
                && requirement.level.binds()
            {
                let (level, id) = (requirement.level.name(), &requirement.id);
                open.push(format!("RFC {} {id} ({level}): {missing}", document.rfc));
            }
        }
    }
    open
}

/// A source file, by its path from the root, with its items.
pub(crate) struct CitedFile {
    path: String,
    items: Vec<scan::Item>,
}

fn cited_files(root: &Path) -> Result<Vec<CitedFile>> {
    let mut files = Vec::new();
    for directory in SOURCES {
        for path in source::files(&root.join(directory))? {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            if relative.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                let items = scan::items(&text, source::is_test_file(root, relative));
                files.push(CitedFile { path: relative.display().to_string(), items });
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lists_can_be_read_and_our_sources_scanned() {
        let root = paths::workspace();
        let documents = requirement::read(&root.join(LISTS)).unwrap();
        let linked = link::link(&documents, &cited_files(root).unwrap());
        assert_eq!(linked.requirements.len(), documents.len());
        assert!(!linked.requirements[0].iter().all(|links| links.tests.is_empty()));
    }
}
