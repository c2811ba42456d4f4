//! The request to send: what the options ask for, and what a redirect makes of it.

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    USER_AGENT,
};
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use super::options::{CurlOptions, read_file};
use super::target::{Credentials, Origin, Target};
use crate::cli::error::Failure;

const OUR_NAME: &str = concat!("xstack/", env!("CARGO_PKG_VERSION"));

/// A request without its target; it outlives redirects.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    method: Method,
    /// `-X`: kept through redirects, whatever they say.
    custom_method: bool,
    body: Option<Bytes>,
    headers: Vec<CustomHeader>,
    user_agent: Option<HeaderValue>,
    credentials: Option<Credentials>,
}

/// One `-H`.
#[derive(Clone, Debug)]
enum CustomHeader {
    Send(HeaderName, HeaderValue),
    LeaveOut(HeaderName),
}

impl Plan {
    /// What the options ask for.
    pub(super) fn new(options: &CurlOptions) -> Result<Self, Failure> {
        if options.head && !options.data.is_empty() {
            return Err(Failure::Usage(
                "You can only select one HTTP request method! You asked for both POST (-d, --data) and HEAD (-I, \
                 --head)."
                    .to_owned(),
            ));
        }
        let body = options.data.load()?;
        let method = match (&options.method, options.head, &body) {
            (Some(name), ..) => Method::from_bytes(name.as_bytes())
                .map_err(|_| Failure::Usage(format!("'{name}' cannot be a request method")))?,
            (None, true, _) => Method::HEAD,
            (None, false, Some(_)) => Method::POST,
            (None, false, None) => Method::GET,
        };
        Ok(Self {
            method,
            custom_method: options.method.is_some(),
            body,
            headers: custom_headers(&options.headers)?,
            user_agent: match options.user_agent.as_deref() {
                Some("") => None,
                Some(name) => Some(header_value(name)?),
                None => Some(HeaderValue::from_static(OUR_NAME)),
            },
            credentials: options.user.as_deref().map(|user| {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                Credentials { name: name.into(), password: password.into() }
            }),
        })
    }

    /// The request for `target`. Secrets and a `Host` of the user's own are for `first`, where the user sent us,
    /// and for nobody that we were redirected to.
    pub(super) fn request(&self, target: &Target, first: &Origin) -> Result<Request<Full<Bytes>>, Failure> {
        let trusted = target.origin() == *first;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, header_value(&target.authority())?);
        let own_credentials = if trusted { self.credentials.as_ref() } else { None };
        if let Some(credentials) = target.credentials().as_ref().or(own_credentials) {
            headers.insert(AUTHORIZATION, basic(credentials)?);
        }
        if let Some(name) = &self.user_agent {
            headers.insert(USER_AGENT, name.clone());
        }
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(body) = &self.body {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        self.customise(&mut headers, trusted);
        let mut request = Request::new(Full::new(self.body.clone().unwrap_or_default()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target
            .path_and_query()
            .parse()
            .map_err(|error| Failure::BadUrl { reason: format!("the path cannot be sent: {error}") })?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Lets `-H` replace, add and remove. The first of a name replaces ours, further ones are sent besides.
    fn customise(&self, headers: &mut HeaderMap, trusted: bool) {
        let mut replaced: Vec<&HeaderName> = Vec::new();
        for header in &self.headers {
            match header {
                CustomHeader::Send(name, _) if !trusted && [AUTHORIZATION, COOKIE, HOST].contains(name) => {}
                CustomHeader::Send(name, value) if replaced.contains(&name) => {
                    headers.append(name, value.clone());
                }
                CustomHeader::Send(name, value) => {
                    replaced.push(name);
                    headers.insert(name, value.clone());
                }
                CustomHeader::LeaveOut(name) => {
                    headers.remove(name);
                }
            }
        }
    }

    /// Becomes the request that follows a redirect with `status` (RFC 9110 §15.4, and what browsers made of it).
    ///
    /// 301 and 302 turn a POST into a GET, 303 turns everything but HEAD into one; 307 and 308 change nothing. A
    /// method that the user chose by `-X` stays, though the body goes where the method would have changed.
    pub(super) fn redirected(&mut self, status: StatusCode) {
        let posts = self.body.is_some();
        let becomes_get = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => posts,
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            _ => false,
        };
        if becomes_get {
            self.body = None;
            if !self.custom_method {
                self.method = Method::GET;
            }
        }
    }
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, Failure> {
    let pair = [&credentials.name[..], &credentials.password[..]].join(&b':');
    let mut value = header_value(&format!("Basic {}", BASE64.encode(&pair)))?;
    value.set_sensitive(true);
    Ok(value)
}

fn custom_headers(lines: &[String]) -> Result<Vec<CustomHeader>, Failure> {
    let mut headers = Vec::new();
    for line in lines {
        match line.strip_prefix('@') {
            Some(file) => {
                let bytes = read_file(file)?;
                for line in String::from_utf8_lossy(&bytes).lines() {
                    headers.extend(custom_header(line)?);
                }
            }
            None => headers.extend(custom_header(line)?),
        }
    }
    Ok(headers)
}

/// `None` for a line that is no header at all, which curl passes over too.
fn custom_header(line: &str) -> Result<Option<CustomHeader>, Failure> {
    let header = match (line.split_once(':'), line.trim_end().strip_suffix(';')) {
        (Some((name, value)), _) if value.trim().is_empty() => CustomHeader::LeaveOut(header_name(name)?),
        (Some((name, value)), _) => CustomHeader::Send(header_name(name)?, header_value(value.trim())?),
        (None, Some(name)) => CustomHeader::Send(header_name(name)?, HeaderValue::from_static("")),
        (None, None) => return Ok(None),
    };
    Ok(Some(header))
}

fn header_name(text: &str) -> Result<HeaderName, Failure> {
    HeaderName::from_bytes(text.trim().as_bytes())
        .map_err(|_| Failure::Usage(format!("'{}' cannot be the name of a header", text.trim())))
}

fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| Failure::Usage(format!("'{text}' cannot be the value of a header")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: CurlOptions,
    }

    fn plan(words: &[&str]) -> Result<Plan, Failure> {
        let words = ["x", "http://u:p@h/"].iter().chain(words);
        Plan::new(&Line::try_parse_from(words).expect("parses").options)
    }

    fn request(plan: &Plan, url: &str) -> Request<Full<Bytes>> {
        let first = Target::parse("http://h/").expect("URL").origin();
        plan.request(&Target::parse(url).expect("URL"), &first).expect("request")
    }

    #[test]
    fn the_method_follows_from_the_options() {
        let method = |words: &[&str]| plan(words).map(|plan| plan.method).expect("plan");
        assert_eq!(method(&[]), Method::GET);
        assert_eq!(method(&["-I"]), Method::HEAD);
        assert_eq!(method(&["-d", "x"]), Method::POST);
        assert_eq!(method(&["-d", "x", "-X", "PUT"]), Method::PUT);
        for bad in [&["-X", "G ET"][..], &["-I", "-d", "x"], &["-H", "a b: c"], &["-H", "a: b\r\nc: d"]] {
            assert_eq!(plan(bad).map(|_| ()).map_err(|failure| failure.exit().code()), Err(2), "{bad:?}");
        }
    }

    #[test]
    fn custom_headers_replace_add_and_remove() {
        let plan = plan(&[
            "-H",
            "Accept:",
            "-H",
            "X-A: 1",
            "-H",
            "X-A: 2",
            "-H",
            "Empty;",
            "-H",
            "Host: other",
            "-H",
            "junk",
        ])
        .expect("plan");
        let request = request(&plan, "http://h:80/");
        let headers = request.headers();
        assert!(!headers.contains_key(ACCEPT));
        assert_eq!(headers.get_all("x-a").iter().count(), 2);
        assert_eq!(headers["empty"], "");
        assert_eq!(headers[HOST], "other");
    }

    #[test]
    fn secrets_stay_with_the_first_host() {
        let plan =
            plan(&["-u", "n:p", "-H", "Cookie: c", "-H", "Host: secret", "-H", "X-Open: 1"]).expect("plan");
        let same = request(&plan, "http://h/other");
        assert_eq!(same.headers()[AUTHORIZATION], "Basic bjpw");
        assert_eq!(same.headers()[COOKIE], "c");
        for url in ["http://evil/", "http://h:81/"] {
            let other = request(&plan, url);
            assert!(!other.headers().contains_key(AUTHORIZATION) && !other.headers().contains_key(COOKIE));
            assert_ne!(other.headers()[HOST], "secret");
            assert_eq!(other.headers()["x-open"], "1");
        }
    }

    #[test]
    fn the_urls_own_credentials_go_first() {
        let plan = plan(&["-u", "n:p"]).expect("plan");
        assert_eq!(request(&plan, "http://u%40:x@h/").headers()[AUTHORIZATION], "Basic dUA6eA==");
    }

    #[test]
    fn redirects_rewrite_the_method_as_curl_does() {
        let after = |words: &[&str], status: u16| {
            let mut plan = plan(words).expect("plan");
            plan.redirected(StatusCode::from_u16(status).expect("status"));
            (plan.method.to_string(), plan.body.is_some())
        };
        for status in [301, 302, 303] {
            assert_eq!(after(&["-d", "x"], status), ("GET".into(), false));
            assert_eq!(after(&["-I"], status), ("HEAD".into(), false));
            assert_eq!(after(&["-d", "x", "-X", "PUT"], status), ("PUT".into(), false));
        }
        for status in [307, 308] {
            assert_eq!(after(&["-d", "x"], status), ("POST".into(), true));
        }
    }
}
