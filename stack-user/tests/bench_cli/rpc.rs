//! Requests, connections, and both beside bulk: against our own server, and against others that are none.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::{InMemory, Outcome, bench, bench_until, free_port, served};
use stack_user::cli::{error::Exit, kernel::KernelNetwork};

/// The only line of stdout.
fn json(outcome: &Outcome) -> Value {
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
    assert_eq!(outcome.stdout.lines().count(), 1, "{}", outcome.stdout);
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// Checks that quantiles are in order, and returns them.
#[track_caller]
fn quantiles(told: &Value) -> Vec<u64> {
    let latency = &told["latency_ns"];
    let names = ["min", "p50", "p90", "p99", "p999", "max"];
    let values: Vec<_> = names.iter().map(|name| latency[name].as_u64().expect(name)).collect();
    assert!(values.is_sorted() && values[0] > 0, "{latency}");
    let mean = latency["mean"].as_f64().unwrap();
    assert!(values[0] as f64 <= mean && mean <= values[5] as f64, "{latency}");
    values
}

#[tokio::test]
async fn so_many_requests_are_answered_and_told_as_json() {
    let told = json(&served(KernelNetwork, KernelNetwork, &["rr", "-n", "500", "-J"]).await);
    assert_eq!(
        (told["benchmark"].as_str(), told["transactions"].as_u64(), told.as_object().unwrap().len()),
        (Some("rr"), Some(500), 5),
        "{told}"
    );
    let (seconds, per_second) = (told["seconds"].as_f64().unwrap(), told["per_second"].as_f64().unwrap());
    assert!(seconds > 0.0 && (seconds * per_second / 500.0 - 1.0).abs() < 0.001, "{told}");
    quantiles(&told);
}

#[tokio::test]
async fn connections_share_the_requests_and_lengths_may_differ() {
    let arguments = ["rr", "-n", "400", "-c", "8", "--request", "1", "--response", "70000", "-J"];
    let told = json(&served(KernelNetwork, KernelNetwork, &arguments).await);
    assert_eq!(told["transactions"].as_u64(), Some(400));
    let arguments = ["rr", "-n", "3", "--request", "1048576", "--response", "1", "-J"];
    let told = json(&served(KernelNetwork, KernelNetwork, &arguments).await);
    assert_eq!(told["transactions"].as_u64(), Some(3));
}

#[tokio::test]
async fn a_rate_is_kept_by_all_connections_together() {
    let arguments = ["rr", "--rate", "2000", "-t", "0.5", "-O", "0.1", "-c", "4", "-J"];
    let told = json(&served(KernelNetwork, KernelNetwork, &arguments).await);
    assert_eq!(told["transactions"].as_u64(), Some(1_000), "{told}");
    quantiles(&told);
}

#[tokio::test]
async fn connections_are_opened_for_one_request_and_closed_in_either_way() {
    for more in [&["-c", "4"][..], &["--reset"], &["--request", "100000", "--response", "300000"]] {
        let arguments = [&["crr", "-n", "200", "-J"], more].concat();
        let told = json(&served(KernelNetwork, KernelNetwork, &arguments).await);
        assert_eq!(
            (told["benchmark"].as_str(), told["transactions"].as_u64(), told["failed"].as_u64()),
            (Some("crr"), Some(200), Some(0)),
            "{told}"
        );
        quantiles(&told);
    }
}

#[tokio::test]
async fn the_same_over_our_stack_in_memory() {
    for arguments in [
        &["rr", "-n", "300", "-c", "3"][..],
        &["rr", "-n", "300", "--rate", "3000"],
        &["rr", "-n", "20", "--request", "100000", "--response", "100000"],
        &["crr", "-n", "100", "-c", "4"],
        &["crr", "-n", "100", "--reset"],
    ] {
        let (server, client) = InMemory::pair().await;
        let told = json(&served(server, client, &[arguments, &["-J"]].concat()).await);
        let expected: u64 = arguments[2].parse().unwrap();
        assert_eq!(told["transactions"].as_u64(), Some(expected), "{arguments:?} {told}");
        quantiles(&told);
    }
}

#[tokio::test]
async fn idle_connections_are_held_and_each_is_touched() {
    let arguments = ["conns", "-c", "300", "--hold", "0.1", "-J"];
    for told in [
        json(&served(KernelNetwork, KernelNetwork, &arguments).await),
        json(&{
            let (server, client) = InMemory::pair().await;
            served(server, client, &arguments).await
        }),
    ] {
        assert_eq!((told["benchmark"].as_str(), told["connections"].as_u64()), (Some("conns"), Some(300)));
        assert!(told["seconds"].as_f64().unwrap() > 0.0 && told["bytes_each"].is_i64(), "{told}");
        quantiles(&told);
    }
    let outcome = served(KernelNetwork, KernelNetwork, &["conns", "-c", "20", "--hold", "0"]).await;
    assert!(outcome.stdout.starts_with("20 connections were opened in "), "{}", outcome.stdout);
}

#[tokio::test]
async fn requests_are_measured_alone_and_beside_bulk_in_either_direction() {
    for direction in [&[][..], &["-R"]] {
        let arguments = [&["mix", "-t", "0.3", "-O", "0.1", "--rate", "500", "-J"], direction].concat();
        let (server, client) = InMemory::pair().await;
        for told in [
            json(&served(KernelNetwork, KernelNetwork, &arguments).await),
            json(&served(server, client, &arguments).await),
        ] {
            assert_eq!(told["benchmark"].as_str(), Some("mix"));
            for part in [&told, &told["alone"]] {
                assert!(part["bulk_bits_per_second"].as_f64().unwrap() > 1e6, "{direction:?} {told}");
                assert_eq!(part["rr"]["transactions"].as_u64(), Some(150), "{direction:?} {told}");
                quantiles(&part["rr"]);
            }
            let ratio = told["bulk_bits_per_second"].as_f64().unwrap()
                / told["alone"]["bulk_bits_per_second"].as_f64().unwrap();
            assert!((told["ratios"]["bulk"].as_f64().unwrap() - ratio).abs() < 0.001, "{told}");
        }
    }
}

#[tokio::test]
async fn each_interval_has_a_line_and_the_end_a_summary_in_words() {
    let outcome = served(KernelNetwork, KernelNetwork, &["rr", "-t", "0.7", "-i", "0.2"]).await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
    let intervals =
        outcome.stdout.lines().filter(|line| line.contains(" s ") && line.contains("p50")).count();
    assert_eq!(intervals, 4, "{}", outcome.stdout);
    for said in ["64 bytes each way", "over one connection", "a second", "p99.9"] {
        assert!(outcome.stdout.contains(said), "{said}: {}", outcome.stdout);
    }
    let outcome =
        served(KernelNetwork, KernelNetwork, &["crr", "-n", "10", "--response", "9", "--reset"]).await;
    for said in ["10 transactions of 64 bytes there and 9 back", "then reset"] {
        assert!(outcome.stdout.contains(said), "{said}: {}", outcome.stdout);
    }
}

#[tokio::test]
async fn a_run_that_is_stopped_tells_what_it_has_got() {
    let stop = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        Exit::Interrupted
    };
    let port = free_port().await;
    let server = bench(KernelNetwork, &["server", "-p", &port, "--ports", "1"]);
    let client = bench_until(KernelNetwork, &["rr", "127.0.0.1", "-p", &port, "-J"], stop);
    let outcome =
        tokio::select! { biased; server = server => panic!("{server:?}"), client = client => client };
    assert_eq!(outcome.code, 130);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(told["transactions"].as_u64().unwrap() > 0, "{told}");
}

/// What a client says of a server that does this with each connection.
async fn against<F: Future<Output = ()>>(arguments: &[&str], serve: impl Fn(TcpStream) -> F) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let serving = async {
        loop {
            serve(listener.accept().await.unwrap().0).await;
        }
    };
    let arguments = [&arguments[..1], &["127.0.0.1", "-p", &port], &arguments[1..]].concat();
    tokio::select! { () = serving => unreachable!(), outcome = bench(KernelNetwork, &arguments) => outcome }
}

const AGREED: &[u8] = b"XSBENCH\n\0\x01\0\0\0\0\0\0";

#[tokio::test]
async fn a_server_that_is_none_is_told_from_one_of_another_version_and_one_that_refuses() {
    for (says, code, told) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], 8, "does not answer as `xstack bench server`"),
        (b"", 8, "does not answer as `xstack bench server`"),
        (b"XSBENCH\n\0\x02\0\0\0\0\0\0", 8, "speaks version 2"),
        (b"XSBENCH\n\0\x01\0\x03\0\0\0\x06go\x1b[2J", 7, r"the server refused: go\x1b[2J"),
        (b"XSBENCH\n\0\x01\0\0\xff\xff\0\0", 8, "does not answer as"),
    ] {
        for command in ["rr", "crr"] {
            let outcome = against(&[command, "-n", "9"], async |mut stream| {
                let _ = stream.read_exact(&mut [0; 20]).await;
                let _ = stream.write_all(says).await;
            })
            .await;
            assert_eq!((outcome.code, outcome.stdout.as_str()), (code, ""), "{}", outcome.stderr);
            assert!(outcome.stderr.contains(told), "{told}: {}", outcome.stderr);
        }
    }
}

#[tokio::test]
async fn a_server_that_sends_too_much_or_goes_away_is_told() {
    for (says, code, told) in [(65, 8, "sent more than it was asked for"), (63, 56, "closed the connection")]
    {
        for more in [&[][..], &["--rate", "1"]] {
            let outcome = against(&[&["rr", "-n", "9"], more].concat(), async |mut stream| {
                let _ = stream.write_all(AGREED).await;
                let _ = stream.read_exact(&mut [0; 84]).await;
                let _ = stream.write_all(&[0; 100][..says]).await;
                let _ = stream.shutdown().await;
                let _ = stream.read(&mut [0; 100]).await;
            })
            .await;
            assert_eq!(outcome.code, code, "{more:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(told), "{told}: {}", outcome.stderr);
        }
    }
}

#[tokio::test]
async fn transactions_that_fail_are_counted_by_their_kind() {
    let outcome = against(&["crr", "-n", "6", "-J"], async |mut stream| {
        let _ = stream.read_exact(&mut [0; 12]).await;
        // Whoever asks only is answered; whoever has a request finds the door closed.
        let asks = stream.read_exact(&mut [0; 8]).await.is_ok()
            && tokio::time::timeout(std::time::Duration::from_millis(100), stream.read(&mut [0; 64]))
                .await
                .is_err();
        if asks {
            let _ = stream.write_all(AGREED).await;
        }
    })
    .await;
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((told["transactions"].as_u64(), told["failed"].as_u64()), (Some(0), Some(6)), "{told}");
    assert_eq!(told["failures"]["cut off"], 6, "{told}");
}

#[tokio::test]
async fn nobody_there_and_options_that_make_no_sense() {
    let port = free_port().await;
    let outcome = bench(KernelNetwork, &["rr", "127.0.0.1", "-p", &port]).await;
    assert_eq!(outcome.code, 7, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("connection refused"), "{}", outcome.stderr);
    for arguments in [
        &["rr", "127.0.0.1", "--request", "0"][..],
        &["rr", "127.0.0.1", "--response", "1048577"],
        &["rr", "127.0.0.1", "-t", "1", "-n", "1"],
        &["rr", "127.0.0.1", "-c", "0"],
        &["rr", "127.0.0.1", "--rate", "0"],
        &["rr", "127.0.0.1", "-t", "-1"],
        &["rr", "not a host"],
        &["crr"],
        &["server", "--ports", "0"],
        &["server", "--ports", "66"],
    ] {
        assert_eq!(bench(KernelNetwork, arguments).await.code, 2, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_client_that_asks_nonsense_is_told_what_would_be_sense() {
    let port = free_port().await;
    let server = bench(KernelNetwork, &["server", "-p", &port, "--ports", "1"]);
    let client = async {
        let mut stream = loop {
            if let Ok(stream) = TcpStream::connect(format!("127.0.0.1:{port}")).await {
                break stream;
            }
            tokio::task::yield_now().await;
        };
        // A request of no length, and more behind it than anybody reads: the answer must arrive all the same.
        stream.write_all(b"XSBENCH\n\0\x01\0\x01\0\0\0\0\0\0\0\x40").await.unwrap();
        stream.write_all(&[0; 100_000]).await.unwrap();
        let mut answer = vec![0; 16];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..12], *b"XSBENCH\n\0\x01\0\x03");
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "requests and responses have 1 to 1048576 bytes");
    };
    tokio::select! { server = server => panic!("{server:?}"), () = client => {} }
}
