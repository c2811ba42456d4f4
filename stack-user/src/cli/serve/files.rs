//! From a request to its answer: a file by tower-http's `ServeDir`, a listing, a redirect or a refusal.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        self, ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST,
        IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION,
        RANGE, VARY,
    },
};
use http_body_util::{BodyExt, Empty};
use tokio::task::spawn_blocking;
use tower::{BoxError, ServiceExt, service_fn};
use tower_http::{CompressionLevel, compression::Compression, services::ServeDir};

use super::{
    kept::{Answer, Kept},
    listing,
    opened::Opened,
    pages,
    path::RequestPath,
    tree::{Found, FoundFile, Refusal, Tree},
    version::FileVersion,
};
use crate::cli::http_server::Body;

/// From this size on compressing is worth its while: less does not fill a packet either way.
const WORTH_COMPRESSING: u64 = 1024;

const SERVER: HeaderValue = HeaderValue::from_static(concat!("xstack/", env!("CARGO_PKG_VERSION")));

/// What is answered to requests. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Files {
    tree: Arc<Tree>,
    /// Compress, and serve what was compressed beforehand.
    gzip: bool,
    /// What is served with 404, if it is there.
    not_found: Arc<RequestPath>,
    kept: Arc<Kept>,
}

/// What an answer was made of, if the next one may be made of it, too.
#[derive(Clone)]
struct MadeOf {
    version: FileVersion,
    content: Bytes,
}

impl MadeOf {
    fn of(file: &FoundFile) -> Option<Self> {
        let (version, content) = (file.settled?, file.content.as_deref()?);
        Some(Self { version, content: Bytes::copy_from_slice(content) })
    }
}

impl Files {
    pub(super) fn new(tree: Tree, gzip: bool, not_found: RequestPath) -> Self {
        Self { tree: Arc::new(tree), gzip, not_found: Arc::new(not_found), kept: Arc::default() }
    }

    /// Whether the root can be looked into.
    pub(super) fn check(&self) -> std::io::Result<()> {
        self.tree.check()
    }

    /// The answer, compressed if that is wanted and worth its while.
    pub(super) async fn answer<B: Send + 'static>(self, request: Request<B>) -> Response<Body> {
        let request = request.map(|_| ());
        // Who asks for the whole of something, whatever they have, may be answered as others were.
        let takes_gzip = asks_for_the_whole(&request).then(|| self.gzip && takes_gzip(request.headers()));
        if let Some(gzip) = takes_gzip
            && let Some(response) = self.answer_again(request.uri().path(), gzip)
        {
            return response;
        }
        // In a box, since it is large: whoever has their answer by now need not carry it along.
        Box::pin(self.answer_anew(request, takes_gzip)).await
    }

    /// `keep` tells to keep the answer for others, and whether for those who take gzip.
    async fn answer_anew(self, request: Request<()>, keep: Option<bool>) -> Response<Body> {
        let gzip = self.gzip;
        let keep = keep.map(|gzip| (request.uri().path().to_owned(), gzip, Arc::clone(&self.kept)));
        let inner = service_fn(move |request| {
            let files = self.clone();
            async move { Ok::<_, std::convert::Infallible>(files.plain(request).await) }
        });
        let mut response = if gzip {
            let compressing = Compression::new(inner)
                .gzip(true)
                .quality(CompressionLevel::Fastest)
                .compress_when(is_worth_compressing);
            match compressing.oneshot(request).await {
                Ok(response) => {
                    let (mut parts, body) = response.into_parts();
                    if parts.headers.contains_key(CONTENT_ENCODING)
                        && !parts.headers.contains_key(CONTENT_LENGTH)
                    {
                        weaken(&mut parts.headers);
                    }
                    Response::from_parts(parts, body.map_err(BoxError::from).boxed_unsync())
                }
                Err(never) => match never {},
            }
        } else {
            match inner.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        response.headers_mut().insert(header::SERVER, SERVER);
        if let Some(made_of) = response.extensions_mut().remove::<MadeOf>()
            && let Some((path, gzip, kept)) = keep
            // What was compressed on the way is other bytes, and more than were read.
            && response.headers().contains_key(CONTENT_LENGTH)
            && let Ok(parsed) = RequestPath::parse(&path)
        {
            let MadeOf { version, content } = made_of;
            let headers = response.headers().clone();
            kept.put(&path, gzip, Answer { path: parsed, version, headers, content });
        }
        response
    }

    /// The answer that this path had before, if what it names is what it was.
    fn answer_again(&self, path: &str, gzip: bool) -> Option<Response<Body>> {
        let answer = self.kept.get(path, gzip)?;
        if self.tree.version_at_once(&answer.path, gzip) != Some(answer.version) {
            return None;
        }
        let mut response = Response::new(pages::full(answer.content.clone()));
        *response.headers_mut() = answer.headers.clone();
        Some(response)
    }

    async fn plain(self, request: Request<()>) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        if request.method() != Method::GET && !is_head {
            let mut response = pages::error(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if !names_its_host(&request) {
            return pages::error(StatusCode::BAD_REQUEST);
        }
        let Ok(path) = RequestPath::parse(request.uri().path()) else {
            return pages::error(StatusCode::BAD_REQUEST);
        };
        let gzip = self.gzip && takes_gzip(request.headers());
        let found = self.find(path.clone(), gzip, !is_head).await;
        match found {
            Ok(Found::File(file)) => {
                let made_of = MadeOf::of(&file);
                let mut response = self.file(*file, &request).await;
                if response.status() == StatusCode::OK
                    && let Some(made_of) = made_of
                {
                    response.extensions_mut().insert(made_of);
                }
                response
            }
            Ok(Found::WithoutSlash) => redirect(&path, request.uri().query()),
            Ok(Found::Listing(entries)) => {
                let mut response = if wants_json(request.headers()) {
                    pages::page(StatusCode::OK, "application/json", listing::json(&entries))
                } else {
                    pages::page(StatusCode::OK, "text/html; charset=utf-8", listing::html(&path, &entries))
                };
                response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
                response
            }
            Err(Refusal::NotFound) => self.not_found(gzip, !is_head).await,
            Err(Refusal::Forbidden) => pages::error(StatusCode::FORBIDDEN),
            Err(Refusal::Busy) => {
                tracing::warn!("no descriptor is left to open {}", path.relative().display());
                pages::error(StatusCode::SERVICE_UNAVAILABLE)
            }
            Err(Refusal::Failed(error)) => {
                tracing::warn!("cannot read {}: {error}", path.relative().display());
                pages::error(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    async fn find(&self, path: RequestPath, gzip: bool, content: bool) -> Result<Found, Refusal> {
        let tree = Arc::clone(&self.tree);
        let found = spawn_blocking(move || tree.find(&path, gzip, content)).await;
        found.unwrap_or_else(|error| Err(Refusal::Failed(std::io::Error::other(error))))
    }

    /// The file, or what of it and whether at all it is wanted (RFC 9110 §13, §14).
    async fn file(&self, found: FoundFile, request: &Request<()>) -> Response<Body> {
        let content_type = content_type(&found.name);
        let (is_gzip, length) = (found.is_gzip, found.metadata.len());
        let opened = Opened::new(found);
        let mut headers = request.headers().clone();
        if let Some(range) = headers.remove(RANGE).and_then(|range| range_of(&range, length)) {
            headers.insert(RANGE, range);
        }
        if let (Some(condition), true) = (headers.remove(IF_RANGE), headers.contains_key(RANGE)) {
            let whole = serve(&opened, Method::HEAD, HeaderMap::new()).await;
            if !is_still(whole.headers(), &condition) {
                headers.remove(RANGE);
            }
        }
        let mut response = serve(&opened, request.method().clone(), headers).await;
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            if is_gzip {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        if is_gzip {
            response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        if status.is_client_error() || status.is_server_error() {
            response.headers_mut().remove(CONTENT_LENGTH);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            *response.body_mut() = pages::full(pages::error_text(status));
        }
        response
    }

    /// The user's page for what is not there, or ours.
    async fn not_found(&self, gzip: bool, content: bool) -> Response<Body> {
        let Ok(Found::File(file)) = self.find((*self.not_found).clone(), gzip, content).await else {
            return pages::error(StatusCode::NOT_FOUND);
        };
        let method = if content { Method::GET } else { Method::HEAD };
        let request = Request::builder().method(method).body(()).unwrap_or_default();
        let mut response = self.file(*file, &request).await;
        *response.status_mut() = StatusCode::NOT_FOUND;
        for name in [ETAG, LAST_MODIFIED, header::ACCEPT_RANGES] {
            response.headers_mut().remove(name);
        }
        response
    }
}

/// Every request of HTTP/1.1 has one `Host`, and whoever sends several is up to something (RFC 9112 §3.2).
fn names_its_host(request: &Request<()>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11)
}

/// Whether a request is for all of a file, and neither for a part of it nor on any condition (RFC 9110 §13.1, §14.2).
fn asks_for_the_whole(request: &Request<()>) -> bool {
    let less = [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    let headers = request.headers();
    request.method() == Method::GET
        && names_its_host(request)
        && !less.iter().any(|name| headers.contains_key(name))
}

/// Has tower-http serve `opened`.
async fn serve(opened: &Opened, method: Method, headers: HeaderMap) -> Response<Body> {
    let mut request = Request::new(Empty::<bytes::Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::from_static("/it");
    *request.headers_mut() = headers;
    let mut service = ServeDir::with_backend("", opened.clone())
        .with_buf_chunk_size(opened.piece())
        .ignore_multi_range_requests(true);
    match service.try_call(request).await {
        Ok(response) => response.map(|body| body.map_err(BoxError::from).boxed_unsync()),
        Err(error) => {
            tracing::warn!("cannot serve a file that is open: {error}");
            pages::error(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// A `Range` as tower-http reads it rightly, of a file of this length. `None` for a unit that is not known, which asks for
/// the whole (RFC 9110 §14.2).
fn range_of(range: &HeaderValue, length: u64) -> Option<HeaderValue> {
    // RFC 9110 §14.1: the names of units are case-insensitive.
    let range = range.to_str().ok()?.to_ascii_lowercase();
    let wanted = range.strip_prefix("bytes=")?;
    // RFC 9110 §14.1.2: of a file that is shorter than the suffix asked for, all of it.
    let suffix = wanted.strip_prefix('-').and_then(|suffix| suffix.parse::<u64>().ok());
    if length > 0 && suffix.is_some_and(|suffix| suffix > length) {
        return Some(HeaderValue::from_static("bytes=0-"));
    }
    HeaderValue::from_str(&range).ok()
}

/// Whether what an `If-Range` names is what there is (RFC 9110 §13.1.5): a strong tag, or the date to the letter.
fn is_still(headers: &HeaderMap, condition: &HeaderValue) -> bool {
    let is_tag = condition.as_bytes().starts_with(b"\"") || condition.as_bytes().starts_with(b"W/");
    headers.get(if is_tag { ETAG } else { LAST_MODIFIED }) == Some(condition)
}

fn redirect(path: &RequestPath, query: Option<&str>) -> Response<Body> {
    let mut location = path.as_directory();
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    let mut response = pages::error(StatusCode::MOVED_PERMANENTLY);
    match HeaderValue::from_str(&location) {
        Ok(location) => response.headers_mut().insert(LOCATION, location),
        Err(_) => return pages::error(StatusCode::BAD_REQUEST),
    };
    response
}

/// By the name's ending; text is taken for UTF-8, as it nearly always is.
fn content_type(name: &PathBuf) -> HeaderValue {
    let guessed = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
    if guessed.starts_with("text/") {
        let with_charset = format!("{guessed}; charset=utf-8");
        return HeaderValue::from_str(&with_charset).unwrap_or(HeaderValue::from_static("text/plain"));
    }
    HeaderValue::from_static(guessed)
}

/// Whether what is inside gets shorter by gzip; pictures, films and archives have had the like already.
fn is_worth_compressing(status: StatusCode, _: Version, headers: &HeaderMap, _: &http::Extensions) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let is_text = kind.starts_with("text/")
        || kind.ends_with("+xml")
        || kind.ends_with("+json")
        || matches!(
            kind,
            "application/json"
                | "application/javascript"
                | "application/xml"
                | "application/wasm"
                | "application/manifest+json"
        );
    status == StatusCode::OK && is_text && length.is_some_and(|length| length >= WORTH_COMPRESSING)
}

/// What is compressed on the way is not the same bytes each time: its tag may not vouch for that (RFC 9110 §8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) else { return };
    let weak = [b"W/", tag.as_bytes()].concat();
    if let Ok(weak) = HeaderValue::from_bytes(&weak) {
        headers.insert(ETAG, weak);
    }
}

/// Whether the client named gzip, and not to refuse it (RFC 9110 §12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    elements(headers, ACCEPT_ENCODING)
        .any(|(coding, is_refused)| matches!(&*coding, "gzip" | "x-gzip" | "*") && !is_refused)
}

/// Whether the client wants a listing as JSON: it says so, and does not ask for HTML as browsers do.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = |kind: &str| elements(headers, ACCEPT).any(|(named, refused)| named == kind && !refused);
    accepts("application/json") && !accepts("text/html")
}

/// The elements of a list with weights, in small letters, and whether each has the weight zero.
fn elements(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = (String, bool)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let named = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let is_refused = weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
        (named, is_refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve::tree::Rules;

    #[tokio::test]
    async fn an_answer_is_given_again_only_to_who_asks_for_the_same_and_while_the_file_is_the_same() {
        let site = tempfile::tempdir().expect("a directory");
        let (page, long) = (site.path().join("page.html"), site.path().join("long.txt"));
        std::fs::write(&page, "<p>Hello").expect("written");
        std::fs::write(&long, "compresses ".repeat(1000)).expect("written");
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        let rules = Rules { listing: true, hidden: false, follow_symlinks: false };
        let tree = Tree::open(site.path(), rules).expect("opens");
        let files = Files::new(tree, true, RequestPath::literal("404.html").expect("a path"));
        let request = |path: &str, name: &'static str, value: &'static str| {
            let request = Request::get(path).header(HOST, "h").header(name, value);
            request.body(()).expect("a request")
        };
        let plain = |path| request(path, "accept", "*/*");
        let body =
            async |response: Response<Body>| response.into_body().collect().await.expect("a body").to_bytes();

        assert!(files.answer_again("/page.html", false).is_none(), "nobody has asked yet");
        for (name, value, kept) in [
            ("range", "bytes=1-2", false),
            ("if-none-match", "\"x\"", false),
            ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT", false),
            ("accept", "*/*", true),
        ] {
            files.clone().answer(request("/page.html", name, value)).await;
            let is_at_hand = files.answer_again("/page.html", false).is_some();
            if kept
                && !is_at_hand
                && files
                    .tree
                    .version_at_once(&RequestPath::parse("/page.html").expect("a path"), false)
                    .is_none()
            {
                eprintln!(
                    "SKIP an_answer_is_given_again: {} is on a file system that is not at hand",
                    site.path().display()
                );
                return;
            }
            assert_eq!(is_at_hand, kept, "{name}");
        }
        assert!(files.answer_again("/page.html", true).is_none(), "there might be a .gz for them");
        let again = files.answer_again("/page.html", false).expect("is kept");
        let anew = files.clone().answer_anew(plain("/page.html"), None).await;
        assert_eq!((again.status(), again.headers()), (anew.status(), anew.headers()));
        assert_eq!(body(again).await, body(anew).await);

        // What is not there, and what is compressed on the way, is not kept.
        files.clone().answer(plain("/none")).await;
        files.clone().answer(request("/long.txt", "accept-encoding", "gzip")).await;
        assert!(
            files.answer_again("/none", false).is_none() && files.answer_again("/long.txt", true).is_none()
        );
        files.clone().answer(plain("/long.txt")).await;
        let vary =
            files.answer_again("/long.txt", false).and_then(|again| again.headers().get(VARY).cloned());
        assert_eq!(vary, Some(HeaderValue::from_static("accept-encoding")));

        std::fs::write(&page, "<p>HELLO").expect("written");
        assert!(files.answer_again("/page.html", false).is_none(), "it is another version");
        assert_eq!(body(files.clone().answer(plain("/page.html")).await).await, "<p>HELLO");
        assert!(files.answer_again("/page.html", false).is_none(), "it was written just now");
    }
}
