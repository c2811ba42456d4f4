//! Small files over HTTP: `xstack serve` beside nginx, each on one core, loaded by the same wrk from the other one.

use anyhow::{Context, Result, bail};

use super::{Mode, kernel_to_ours, link, xstack_right};
use crate::bench::case::{Case, Content, Entry, Plan, Process, Read, Reading, Ready, Scene, Teller};
use crate::bench::metric::{P50, P99, RATE};
use crate::bench::network::address;
use crate::bench::target::{At, Goal, Target};

/// One worker, no log, and no limit to what a connection asks for, as `xstack serve` has none.
pub(super) const NGINX: &str = "\
daemon off;
master_process off;
error_log stderr;
pid {directory}/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server { listen 80 backlog=1024; root {directory}; }
}
";

/// As long as a page that says little.
const PAGE_BYTES: usize = 612;

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    [
        ("http-keep", "Requests for a small file over 64 connections that stay open", false),
        ("http-close", "Requests for a small file, each over a connection of its own, 64 at once", true),
    ]
    .into_iter()
    .map(|(name, about, closes)| Case {
        name,
        about: format!("{about}: answers in a second, `wrk` and the server on a core each."),
        entries: vec![
            Entry::scene("xstack serve", scene(plan, Server::Xstack, closes)),
            Entry::scene("nginx", scene(plan, Server::Nginx, closes)),
        ],
        targets: vec![Target::ratio(
            if closes { "HTTP, Connection: close" } else { "HTTP, keep-alive" },
            At::new("xstack serve", RATE),
            At::new("nginx", RATE),
            Goal::LeastTimes(1.3),
        )],
        plotted: RATE,
        most_rounds: usize::MAX,
    })
    .collect()
}

#[derive(Clone, Copy)]
enum Server {
    Xstack,
    Nginx,
}

fn scene(plan: &Plan, server: Server, closes: bool) -> Scene {
    let (link, address, process) = match server {
        Server::Xstack => {
            let serve = xstack_right(Mode::Sleeping, "serve --quiet {directory}");
            (kernel_to_ours(1500), address::OURS_RIGHT, Process::right(serve))
        }
        Server::Nginx => {
            let nginx = Process::right("nginx -c {directory}/nginx.conf").once(Ready::Listens(80));
            (link(1500), address::KERNEL_RIGHT, nginx)
        }
    };
    let url = format!("http://{address}/page.html");
    let first =
        format!("until curl --silent --fail --connect-timeout 0.2 --output /dev/null {url}; do :; done");
    let mut client =
        Process::left(format!("wrk --connections 64 --threads 1 --latency --duration {}s", plan.seconds));
    if closes {
        client = client.and("--header").and("Connection: close");
    }
    Scene {
        link,
        files: vec![
            ("nginx.conf", Content::Text(NGINX.to_owned())),
            ("page.html", Content::Text("<p>Hello\n".repeat(PAGE_BYTES.div_ceil(9)))),
        ],
        // Whoever comes first asks for MAC addresses, and waits for a server that is still coming up.
        background: vec![process, Process::left("sh -c").and(first).once(Ready::Ended)],
        client: client.and(url),
        teller: Teller::Client,
        read: Read::With(wrk_says),
    }
}

/// What wrk prints. A load of errors is no figure.
fn wrk_says(said: &str) -> Result<Vec<Reading>> {
    let line = |begin: &str| said.lines().find_map(|line| line.trim().strip_prefix(begin)).map(str::trim);
    for trouble in ["Non-2xx or 3xx responses:", "Socket errors:"] {
        if let Some(errors) = line(trouble) {
            bail!("wrk saw errors: {trouble} {errors}");
        }
    }
    let rate = line("Requests/sec:").and_then(|rate| rate.parse().ok());
    let rate = Reading::new(RATE, rate.with_context(|| format!("wrk tells no rate: {said}"))?);
    let latency = [(P50, "50%"), (P99, "99%")]
        .map(|(metric, share)| Some(Reading::new(metric, line(share).and_then(nanoseconds)?)));
    Ok([Some(rate)].into_iter().chain(latency).flatten().collect())
}

/// A time as wrk has it: `482.00us`, `1.07ms`, `1.20s`.
fn nanoseconds(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_and_errors_are_no_rate() {
        let said = "Running 1s test\n  Latency Distribution\n     50%  482.00us\n     99%    1.07ms\nRequests/sec: 129012.50\n";
        let expected = [Reading::new(RATE, 129_012.5), Reading::new(P50, 482e3), Reading::new(P99, 1.07e6)];
        assert_eq!(wrk_says(said).unwrap(), expected);
        for trouble in
            ["  Non-2xx or 3xx responses: 7\n", "  Socket errors: connect 0, read 3, write 0, timeout 1\n"]
        {
            assert!(wrk_says(&format!("{trouble}{said}")).unwrap_err().to_string().contains("errors"));
        }
        assert!(wrk_says("").is_err());
    }
}
