//! A directory's entries as a page or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    pages::escape,
    path::{RequestPath, encode},
    tree::Listing,
};
use crate::cli::date;

/// The page for people.
pub(super) fn html(path: &RequestPath, listing: &Listing) -> String {
    let place = format!("/{}{}", path.relative().to_string_lossy(), if path.is_root() { "" } else { "/" });
    let title = escape(&place);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Index of {title}</title>\n\
         <style>body{{font-family:sans-serif}}td,th{{padding:0 1em 0 0;text-align:left}}\
         .n{{text-align:right;font-variant-numeric:tabular-nums}}</style>\n</head>\n<body>\n\
         <h1>Index of {title}</h1>\n<table>\n<tr><th>Name</th><th>Modified (UTC)</th><th class=\"n\">Size</th></tr>\n"
    );
    if !path.is_root() {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in &listing.entries {
        let slash = if entry.is_directory { "/" } else { "" };
        let (link, name) = (encode(&entry.name), escape(&entry.name.to_string_lossy()));
        let modified = date::minutes(entry.modified);
        let size = if entry.is_directory { String::from("-") } else { entry.size.to_string() };
        // A name with a colon would be taken for a scheme. Writing to a String does not fail.
        let _ = writeln!(
            page,
            "<tr><td><a href=\"./{link}{slash}\">{name}{slash}</a></td><td>{modified}</td><td class=\"n\">{size}</td></tr>"
        );
    }
    page.push_str("</table>\n");
    if listing.is_cut {
        page.push_str("<p>There is more, which is left out here.</p>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// The same for programs, in the form of nginx's `autoindex_format json`.
pub(super) fn json(listing: &Listing) -> String {
    #[derive(Serialize)]
    struct Line {
        name: String,
        r#type: &'static str,
        mtime: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    }
    let lines: Vec<Line> = listing
        .entries
        .iter()
        .map(|entry| Line {
            name: entry.name.to_string_lossy().into_owned(),
            r#type: if entry.is_directory { "directory" } else { "file" },
            mtime: date::http(entry.modified),
            size: (!entry.is_directory).then_some(entry.size),
        })
        .collect();
    // Strings and numbers can always be written.
    serde_json::to_string(&lines).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::cli::serve::tree::Entry;

    fn listing(names: &[&str]) -> Listing {
        let entry = |name: &&str| Entry {
            name: name.into(),
            is_directory: false,
            size: 7,
            modified: SystemTime::UNIX_EPOCH,
        };
        Listing { entries: names.iter().map(entry).collect(), is_cut: false }
    }

    #[test]
    fn names_can_neither_leave_their_place_nor_lead_elsewhere() {
        let path = RequestPath::parse("/a%3Cb%3E/").expect("a path");
        let page = html(&path, &listing(&["<script>\"'&", "a b?#%", "javascript:x", "ü"]));
        assert!(!page.contains("<script>") && page.contains("Index of /a&lt;b&gt;/"), "{page}");
        for link in ["./%3Cscript%3E%22%27%26\"", "./a%20b%3F%23%25\"", "./javascript:x\"", "./%C3%BC\""] {
            assert!(page.contains(&format!("<a href=\"{link}>")), "{link}: {page}");
        }
        let value: serde_json::Value = serde_json::from_str(&json(&listing(&["<\"\n"]))).expect("is JSON");
        assert_eq!(value[0]["name"], "<\"\n");
        assert_eq!(value[0]["mtime"], "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
