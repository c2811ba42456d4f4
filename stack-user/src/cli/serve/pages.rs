//! The pages that we write ourselves: short, and with nothing in them that a client could have put there.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

use crate::cli::http_server::Body;

/// Ours carry no script, and load nothing.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");

/// A response with this content.
pub(super) fn page(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let text = text.into();
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The page that says which error it is.
pub(super) fn error(status: StatusCode) -> Response<Body> {
    page(status, "text/html; charset=utf-8", error_text(status))
}

/// What it says.
pub(super) fn error_text(status: StatusCode) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><title>{status}</title></head>\n\
         <body><h1>{status}</h1><hr>xstack</body></html>\n"
    )
}

/// A body of these bytes.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `text` as it can stand in HTML, also in an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
    }
    escaped
}
