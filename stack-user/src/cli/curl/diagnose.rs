//! Why an exchange failed: hyper's error and what the tap has heard, taken together.

use hyper::Error;

use super::tap::Record;
use crate::cli::error::Failure;

/// The response's head did not come.
pub(super) fn head_failure(error: &Error, record: &Record) -> Failure {
    let head = record.head();
    if let Some(kind) = record.read_error() {
        Failure::Receive(kind)
    } else if record.is_silent() {
        record.write_error().map_or(Failure::EmptyReply, Failure::Send)
    } else if !head.is_empty() && !head.starts_with(b"HTTP/") {
        Failure::Http09
    } else if error.is_parse_too_large() {
        Failure::Unreceivable("the response's headers are larger than 300 KiB, or more than 4096".to_owned())
    } else if error.is_parse() {
        parse_failure(error, &head)
    } else if error.is_incomplete_message() {
        Failure::Unreceivable("the server closed within the response's headers".to_owned())
    } else {
        Failure::Unreceivable(error.to_string())
    }
}

fn parse_failure(error: &Error, head: &[u8]) -> Failure {
    // What follows a 1xx is judged by its own status line; the last one that there is belongs to what failed.
    let mut lines = head.split(|&byte| byte == b'\n');
    let status_line = lines.rfind(|line| line.starts_with(b"HTTP/")).unwrap_or_default();
    let status_line = String::from_utf8_lossy(status_line).trim_end().to_owned();
    if status_line.starts_with("HTTP/1.0 ") || status_line.starts_with("HTTP/1.1 ") {
        if error.is_parse_status() {
            return Failure::UnsupportedHttpVersion { status_line };
        }
        return Failure::WeirdReply { what: error.to_string() };
    }
    Failure::UnsupportedHttpVersion { status_line }
}

/// The response's body broke off. `missing` is how much of its announced length did not come.
pub(super) fn body_failure(error: &Error, record: &Record, missing: Option<u64>) -> Failure {
    if let Some(kind) = record.read_error() {
        Failure::Receive(kind)
    } else if record.has_ended() {
        Failure::Partial { missing }
    } else {
        // Only chunks have a framing that can be wrong.
        Failure::Unreceivable(format!("malformed chunked encoding ({error})"))
    }
}
