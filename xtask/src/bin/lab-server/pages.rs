//! What the lab's web server can do. One enum, so that the paths are listed, parsed and served from one place.

use std::time::Duration;

/// Larger bodies are of no use in a lab, and a typing error should not run for hours.
const LARGEST_BODY: u64 = 10 << 30;
const LONGEST_WAIT_MS: u64 = 600_000;

/// A request's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Home,
    /// A body of that many bytes, see [`byte_at`].
    Bytes(u64),
    /// The same with chunked transfer coding.
    Chunked(u64),
    /// The home page after a while.
    Slow(Duration),
    /// A body that comes one byte each while.
    Drip {
        bytes: u64,
        pause: Duration,
    },
    /// As many redirects as said, then the home page.
    Redirect(u32),
    /// An answer with that status code.
    Status(u16),
    /// Sends back the body it gets.
    Echo,
    /// Shows the request line and the headers it got.
    Headers,
    /// Promises a body of that many bytes, sends half, then resets the connection.
    Reset(u64),
    /// Promises a body of that many bytes, sends half, then closes in an orderly way.
    Truncated(u64),
    /// Accepts the request and never answers.
    Silent,
}

/// What is there, for the page that nobody finds.
pub(crate) const LIST: &str = "\
/                     a page
/bytes/N              N bytes, always the same ones
/chunked/N            the same, chunked
/slow/MS              the page after MS milliseconds
/drip/N/MS            N bytes, one each MS milliseconds
/redirect/N           N redirects, then the page
/status/CODE          an answer with that status code
/echo                 the body that was sent
/headers              the request as it came
/reset/N              half of N bytes, then RST
/truncated/N          half of N bytes, then FIN
/silent               nothing, ever
";

impl Page {
    /// The page at a path; None for a path that means nothing.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut words = path.trim_start_matches('/').split('/');
        let verb = words.next()?;
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let page = match verb {
            "" | "index.html" => Self::Home,
            "bytes" => Self::Bytes(size(number()?)?),
            "chunked" => Self::Chunked(size(number()?)?),
            "slow" => Self::Slow(wait(number()?)?),
            "drip" => Self::Drip { bytes: size(number()?)?, pause: wait(number()?)? },
            "redirect" => Self::Redirect(u32::try_from(number()?).ok()?),
            "status" => Self::Status(u16::try_from(number()?).ok().filter(|code| (200..600).contains(code))?),
            "echo" => Self::Echo,
            "headers" => Self::Headers,
            "reset" => Self::Reset(size(number()?)?),
            "truncated" => Self::Truncated(size(number()?)?),
            "silent" => Self::Silent,
            _ => return None,
        };
        words.next().is_none().then_some(page)
    }
}

fn size(bytes: u64) -> Option<u64> {
    (bytes <= LARGEST_BODY).then_some(bytes)
}

fn wait(milliseconds: u64) -> Option<Duration> {
    (milliseconds <= LONGEST_WAIT_MS).then(|| Duration::from_millis(milliseconds))
}

/// The byte at an offset of every generated body. 251 is a prime, so no power of two of bytes repeats: a lost or
/// doubled segment, ring slot or frame shows in any comparison.
pub(crate) fn byte_at(offset: u64) -> u8 {
    ((offset + offset / 251) % 251) as u8
}

/// Part of a generated body.
pub(crate) fn bytes(offset: u64, length: usize) -> Vec<u8> {
    (offset..offset + length as u64).map(byte_at).collect()
}

/// The home page.
pub(crate) const HOME: &str = "\
<!doctype html>
<html>
<head><title>Example Domain</title></head>
<body>
<h1>Example Domain</h1>
<p>Hello from the lab. If xstack printed this page, then each of its bytes came through an XDP program and an
AF_XDP socket, and the TCP that carried it ran in user space.</p>
</body>
</html>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_the_list_says() {
        for (path, page) in [
            ("/", Page::Home),
            ("/bytes/100", Page::Bytes(100)),
            ("/chunked/7", Page::Chunked(7)),
            ("/slow/1500", Page::Slow(Duration::from_millis(1500))),
            ("/drip/10/5", Page::Drip { bytes: 10, pause: Duration::from_millis(5) }),
            ("/redirect/2", Page::Redirect(2)),
            ("/status/404", Page::Status(404)),
            ("/reset/9", Page::Reset(9)),
            ("/silent", Page::Silent),
        ] {
            assert_eq!(Page::parse(path), Some(page), "{path}");
        }
    }

    #[test]
    fn other_paths_mean_nothing() {
        for path in
            ["/nothing", "/bytes", "/bytes/x", "/bytes/-1", "/bytes/1/2", "/status/99", "/slow/99999999"]
        {
            assert_eq!(Page::parse(path), None, "{path}");
        }
    }

    #[test]
    fn generated_bodies_do_not_repeat_at_frame_sizes() {
        for period in [512, 1448, 1460, 2048, 4096] {
            let same = (0..4 * period).filter(|&at| byte_at(at) == byte_at(at + period)).count() as u64;
            assert!(same < period, "{same} of {} bytes alike at distance {period}", 4 * period);
        }
    }
}
