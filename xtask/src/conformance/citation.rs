//! Citations: `RFC 8985 §6.2`, `§5.3, R1`, `MUST-36` in text, and `…_rfc8985_6_2`, `…_must_36` in a function's name.

use std::fmt;

/// What RFC 9293 calls its requirements (its appendix B); no other RFC of ours numbers them.
const IDS: [&str; 4] = ["MUST", "SHLD", "MAY", "REC"];

/// `§5.4 to §5.6` names what is between, too. A longer range is a mistake.
const LONGEST_RANGE: u32 = 20;

/// What is cited.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Citation {
    /// A requirement of RFC 9293 by its id.
    Id(String),
    /// A place in an RFC.
    Place(Place),
}

/// Where in an RFC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) rfc: u32,
    /// `6.2`, or `A.1` in an appendix. Empty for the RFC as a whole.
    pub(super) section: String,
    /// The part of a section that has a name of its own: `step 4`, `R1`, `(b)`.
    pub(super) part: Option<String>,
}

impl fmt::Display for Citation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Place(Place { rfc, section, part }) => {
                write!(f, "RFC {rfc}")?;
                if !section.is_empty() {
                    write!(f, " §{section}")?;
                }
                part.as_ref().map_or(Ok(()), |part| write!(f, " {part}"))
            }
        }
    }
}

/// All citations in a comment. A bare `§` belongs to the RFC that was named last, which is `rfc` at first.
pub(super) fn in_text(text: &str, mut rfc: Option<u32>) -> Vec<Citation> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut inside_word = false;
    while let Some(first) = rest.chars().next() {
        let mut after = &rest[first.len_utf8()..];
        if !inside_word && let Some((number, tail)) = rfc_number(rest) {
            rfc = Some(number);
            let tail_has_section = section(skip_separators(tail)).is_some();
            if !tail_has_section {
                found.push(place(number, "", None));
            }
            after = tail;
        } else if !inside_word && let Some((id, tail)) = requirement_id(rest) {
            found.push(Citation::Id(id));
            after = tail;
        } else if let (Some(number), Some((first, tail))) = (rfc, section(rest)) {
            let (part, tail) = part_of_section(tail);
            found.push(place(number, first, part));
            after = tail;
            if let Some((last, tail)) = tail.trim_start().strip_prefix("to ").and_then(section) {
                found.extend(between(first, last).map(|section| place(number, &section, None)));
                after = tail;
            }
        }
        let is_one_step = after.len() + first.len_utf8() == rest.len();
        inside_word = is_one_step && (first.is_alphanumeric() || first == '_');
        rest = after;
    }
    found
}

/// All citations in a function's name.
pub(super) fn in_name(name: &str) -> Vec<Citation> {
    let words: Vec<&str> = name.split('_').collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let numbers: Vec<&str> =
            words[at + 1..].iter().copied().take_while(|word| is_section_number(word)).collect();
        if let Some(rfc) = word.strip_prefix("rfc").and_then(|number| number.parse().ok()) {
            let after = words.get(at + 1 + numbers.len()..).unwrap_or_default();
            found.push(place(rfc, &numbers.join("."), part_in_name(after)));
        } else if let (Some(kind), Some(number)) =
            (IDS.iter().find(|kind| kind.eq_ignore_ascii_case(word)), numbers.first())
        {
            found.push(Citation::Id(format!("{kind}-{number}")));
        }
    }
    found
}

fn place(rfc: u32, section: &str, part: Option<String>) -> Citation {
    Citation::Place(Place { rfc, section: section.to_owned(), part })
}

/// `RFC 9293`.
fn rfc_number(text: &str) -> Option<(u32, &str)> {
    let digits = text.strip_prefix("RFC")?.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    Some((digits[..end].parse().ok()?, &digits[end..]))
}

/// `MUST-36`.
fn requirement_id(text: &str) -> Option<(String, &str)> {
    let kind = IDS.iter().find(|kind| text.starts_with(**kind))?;
    let digits = text[kind.len()..].strip_prefix('-')?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let is_whole = end > 0 && !digits[end..].starts_with(char::is_alphanumeric);
    is_whole.then(|| (format!("{kind}-{}", &digits[..end]), &digits[end..]))
}

/// `§3.8.6.1`, `section 3.4`, `appendix A`.
fn section(text: &str) -> Option<(&str, &str)> {
    let number = ["§", "section ", "appendix ", "Appendix "]
        .iter()
        .find_map(|mark| text.strip_prefix(mark))?
        .trim_start();
    let end = number.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(number.len());
    let section = number[..end].trim_end_matches('.');
    let is_number = section
        .split('.')
        .enumerate()
        .all(|(at, part)| is_section_number(part) || at == 0 && is_appendix_letter(part));
    (!section.is_empty() && is_number).then(|| (section, &number[section.len()..]))
}

fn is_section_number(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_appendix_letter(text: &str) -> bool {
    text.len() == 1 && text.starts_with(|c: char| c.is_ascii_uppercase())
}

fn skip_separators(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_whitespace() || c == ',')
}

/// `step 4`, `R1` or `(b)` behind a section.
fn part_of_section(text: &str) -> (Option<String>, &str) {
    let after = skip_separators(text);
    let number_behind = |word: &str| {
        let digits = after.strip_prefix(word)?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let is_whole = !digits[end..].starts_with(char::is_alphanumeric);
        (end > 0 && is_whole).then(|| (Some(format!("{word}{}", &digits[..end])), &digits[end..]))
    };
    let in_parentheses = || {
        let (inside, tail) = after.strip_prefix('(')?.split_once(')')?;
        (inside.len() == 1 && inside.starts_with(|c: char| c.is_ascii_alphanumeric()))
            .then(|| (Some(format!("({inside})")), tail))
    };
    ["step ", "R", "E"].into_iter().find_map(number_behind).or_else(in_parentheses).unwrap_or((None, text))
}

/// `…_step_4` and `…_r1` behind a section's numbers.
fn part_in_name(words: &[&str]) -> Option<String> {
    match words {
        ["step", number, ..] if is_section_number(number) => Some(format!("step {number}")),
        [rule, ..] if rule.strip_prefix('r').is_some_and(is_section_number) => {
            Some(rule.to_ascii_uppercase())
        }
        _ => None,
    }
}

/// The sections after `first` up to `last`, if these are siblings.
fn between(first: &str, last: &str) -> impl Iterator<Item = String> {
    let split = |section: &str| {
        let (parent, number) = section.rsplit_once('.').unwrap_or(("", section));
        Some((parent.to_owned(), number.parse::<u32>().ok()?))
    };
    let range = match (split(first), split(last)) {
        (Some((parent, from)), Some((other, to)))
            if parent == other && to.saturating_sub(from) <= LONGEST_RANGE =>
        {
            Some((parent, from + 1..=to))
        }
        _ => None,
    };
    let only_last = range.is_none().then(|| last.to_owned());
    let siblings = range.into_iter().flat_map(|(parent, numbers)| {
        numbers.map(
            move |number| if parent.is_empty() { number.to_string() } else { format!("{parent}.{number}") },
        )
    });
    siblings.chain(only_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn cites(text: &str, expected: &[&str]) {
        let found: Vec<_> = in_text(text, None).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[track_caller]
    fn name_cites(name: &str, expected: &[&str]) {
        let found: Vec<_> = in_name(name).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn sections_and_ids_are_found_in_text() {
        cites("(RFC 9293 §3.8.6.3, MUST-40)", &["RFC 9293 §3.8.6.3", "MUST-40"]);
        cites("MUST-36 and MUST-37", &["MUST-36", "MUST-37"]);
        cites("MUST-15, MUST-16; SHLD-14.", &["MUST-15", "MUST-16", "SHLD-14"]);
        cites("as RFC 8985 §6.2 says.", &["RFC 8985 §6.2"]);
        cites("RFC 8985.", &["RFC 8985"]);
        cites("RFC 7323, appendix A", &["RFC 7323 §A"]);
        cites("see §4.2", &[]);
    }

    #[test]
    fn a_bare_section_is_of_the_rfc_named_last() {
        cites(
            "RFC 7323 §2.2 and §3.2 (RFC 2018 §3), §4",
            &["RFC 7323 §2.2", "RFC 7323 §3.2", "RFC 2018 §3", "RFC 2018 §4"],
        );
        assert_eq!(in_text("§6.2", Some(8985)).len(), 1);
    }

    #[test]
    fn a_range_names_what_is_between() {
        cites("RFC 6298 §5.4 to §5.6", &["RFC 6298 §5.4", "RFC 6298 §5.5", "RFC 6298 §5.6"]);
        cites("RFC 9293 §3.1 to §4", &["RFC 9293 §3.1", "RFC 9293 §4"]);
    }

    #[test]
    fn parts_of_a_section() {
        cites("RFC 7323 §5.3, R1", &["RFC 7323 §5.3 R1"]);
        cites("RFC 8985 §6.2 step 4: …", &["RFC 8985 §6.2 step 4"]);
        cites("RFC 5227 §2.4 (b): stop", &["RFC 5227 §2.4 (b)"]);
        cites("RFC 9293 §3.5 (figure 8)", &["RFC 9293 §3.5"]);
        cites("RFC 7323 §5 Robust", &["RFC 7323 §5"]);
    }

    #[test]
    fn words_that_only_look_alike_cite_nothing() {
        cites("MUST-HAVE, A_MUST-3, MUST-3x", &[]);
        cites("XRFC 793, MAYBE-1, RFC-793", &[]);
    }

    #[test]
    fn names_cite_too() {
        name_cites("a_closed_window_must_36_must_37", &["MUST-36", "MUST-37"]);
        name_cites("loss_rfc8985_6_2", &["RFC 8985 §6.2"]);
        name_cites("rfc5227_2_4_b_a_first_conflict", &["RFC 5227 §2.4"]);
        name_cites("what_is_no_duplicate_by_rfc5681_2_does_not_count", &["RFC 5681 §2"]);
        name_cites("old_duplicates_rfc7323_5_3_r1", &["RFC 7323 §5.3 R1"]);
        name_cites("seven_must_hold", &[]);
        name_cites("gaps_rfc2018_rfc2883", &["RFC 2018", "RFC 2883"]);
    }
}
