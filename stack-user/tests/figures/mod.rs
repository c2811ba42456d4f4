//! What two ends of a test say of it, each in iperf3's JSON. For tests of more than one kind.

use serde_json::Value;

/// How far two figures of the same thing may be apart: the ends don't stop at the same time.
const APART: f64 = 0.05;

/// How far the rates may be apart that two ends make of the same bytes in a test of one second.
const LATE: f64 = 0.25;

/// How far a rate may be from what its own bytes and seconds make it.
const ROUNDED: f64 = 0.001;

/// The share of what was sent by TCP in a second that may still be on its way when the test is over: in buffers of the sender, of
/// the network and of the receiver.
const ON_ITS_WAY: f64 = 0.15;

/// Checks that the client's document and the server's are of one test, and that their figures agree. `options` are the client's.
pub(crate) fn agree(options: &[&str], client: &Value, server: &Value) {
    for document in [client, server] {
        assert!(document["error"].is_null(), "{options:?}: {}", document["error"]);
        assert!(!document["intervals"].as_array().unwrap().is_empty(), "{options:?}");
    }
    assert_eq!(client["start"]["cookie"], server["start"]["cookie"], "{options:?}");
    let has = |option: &str| options.contains(&option);
    // From the client to the server, and back: what an end has measured itself, the other has been told.
    let suffix = if has("--bidir") { "_bidir_reverse" } else { "" };
    if !has("-R") {
        same(options, "sum_received", client, server);
        flowed(options, "", client);
    }
    if has("-R") || has("--bidir") {
        same(options, &format!("sum_sent{suffix}"), client, server);
        flowed(options, suffix, client);
    }
    let streams = options.iter().position(|option| *option == "-P").map_or("1", |at| options[at + 1]);
    let streams = streams.parse::<usize>().unwrap() * if has("--bidir") { 2 } else { 1 };
    for document in [client, server] {
        assert_eq!(document["start"]["connected"].as_array().unwrap().len(), streams, "{options:?}");
        assert_eq!(document["end"]["streams"].as_array().unwrap().len(), streams, "{options:?}");
    }
}

/// Bits per second of one figure.
pub(crate) fn rate(document: &Value, figure: &str) -> f64 {
    document["end"][figure]["bits_per_second"].as_f64().unwrap_or_else(|| panic!("no {figure}: {document}"))
}

/// What one end has counted, and the other was told: the same bytes, in seconds that are each end's own.
fn same(options: &[&str], figure: &str, client: &Value, server: &Value) {
    let bytes = |document: &Value| {
        let bytes = document["end"][figure]["bytes"].as_u64();
        bytes.unwrap_or_else(|| panic!("no {figure}: {document}"))
    };
    assert_eq!(bytes(client), bytes(server), "{options:?}: {figure} of the client, and of the server");
    for document in [client, server] {
        consistent(options, figure, document);
    }
    let (here, there) = (rate(client, figure), rate(server, figure));
    // A busy machine lets one end start or stop late, by what is much of a second and little of ten.
    let apart = (here - there).abs() / here.max(there);
    assert!(apart <= LATE, "{options:?}: the client's {figure} is {here}, and the server's {there}");
}

/// A figure's rate is what its bytes and seconds make it, whatever the other end says.
fn consistent(options: &[&str], figure: &str, document: &Value) {
    let sum = &document["end"][figure];
    let of = |name: &str| sum[name].as_f64().unwrap_or_else(|| panic!("{figure} has no {name}: {document}"));
    let made = of("bytes") * 8.0 / of("seconds");
    let rate = of("bits_per_second");
    assert!(
        (rate - made).abs() <= ROUNDED * made.max(rate),
        "{options:?}: {figure} is {rate}, its bytes in its seconds {made}"
    );
}

/// As much came as was sent, but for what was still on its way: one end has counted this, and the other that. With `-b`, it was as
/// much as was asked for.
fn flowed(options: &[&str], suffix: &str, client: &Value) {
    let [sent, received] = ["sum_sent", "sum_received"].map(|sum| rate(client, &format!("{sum}{suffix}")));
    assert!(received > 0.0 && sent > 0.0, "{options:?}: {sent} sent, {received} received");
    let bytes = |sum: &str| {
        let bytes = client["end"][format!("{sum}{suffix}")]["bytes"].as_u64();
        bytes.unwrap_or_else(|| panic!("no {sum}: {client}")) as f64
    };
    if !options.contains(&"-u") {
        let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
        assert!(received <= sent, "{options:?}: {sent} bytes sent, and {received} received");
        // Of a few megabytes much is still on its way when they are sent.
        let is_near = options.contains(&"-n") || received >= sent * (1.0 - ON_ITS_WAY);
        assert!(is_near, "{options:?}: {sent} bytes sent, and only {received} received");
    }
    let Some(at) = options.iter().position(|option| *option == "-b") else { return };
    let asked = options[at + 1].strip_suffix('M').unwrap().parse::<f64>().unwrap() * 1e6;
    assert!(near(sent, asked) && near(received, asked), "{options:?}: {sent} sent, {received} received");
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= APART * one.max(other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{consistent, flowed};

    #[test]
    fn a_rate_that_is_not_made_of_its_bytes_and_seconds_is_seen() {
        let is = |rate: f64| {
            let sum = json!({"bytes": 1000, "seconds": 2.0, "bits_per_second": rate});
            let document = json!({"end": {"sum_sent": sum}});
            std::panic::catch_unwind(|| consistent(&[], "sum_sent", &document)).is_ok()
        };
        assert!(is(4000.0) && is(4001.0));
        assert!(!is(4100.0) && !is(500.0) && !is(0.0));
    }

    #[test]
    fn figures_of_what_was_sent_and_of_what_came_are_compared() {
        let flows = |options: &[&str], sent: u64, received: u64| {
            let sum = |bytes: u64| json!({"bytes": bytes, "bits_per_second": bytes * 8});
            let document = json!({"end": {"sum_sent": sum(sent), "sum_received": sum(received)}});
            std::panic::catch_unwind(|| flowed(options, "", &document)).is_ok()
        };
        assert!(
            flows(&["-t", "1"], 1000, 900) && flows(&["-n", "1K"], 1000, 500) && flows(&["-u"], 1000, 1100)
        );
        assert!(!flows(&["-t", "1"], 1000, 500) && !flows(&["-t", "1"], 1000, 1001));
        assert!(!flows(&["-n", "1K"], 1000, 1001));
    }
}
