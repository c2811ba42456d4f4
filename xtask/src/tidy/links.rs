//! Links in documents lead to files that exist.

use std::path::Path;

use super::Finding;

pub(super) fn check(root: &Path, path: &Path, text: &str, findings: &mut Vec<Finding>) {
    let directory = root.join(path.parent().unwrap_or(Path::new("")));
    for (number, line) in text.lines().enumerate() {
        for target in targets(line).filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !directory.join(file).exists() {
                findings.push(Finding {
                    path: path.to_path_buf(),
                    line: number + 1,
                    message: format!("the link to {target} leads nowhere"),
                });
            }
        }
    }
}

/// What stands in the parentheses of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}
