//! An interface with several queues: a shard for each.

use std::{
    collections::HashMap,
    process::{Output, Stdio},
    thread,
    time::Instant,
};

use crate::{
    examples::program,
    support::{Host, Server, TestLab, assert_same_bytes},
};

/// The address that the server claims.
const OURS: &str = "10.77.0.77";

#[test]
fn two_queues_carry_every_flow() {
    let Some(lab) = TestLab::with_queues("two_queues_carry_every_flow", 2) else { return };
    let url = "http://example.com/bytes/300000";
    let expected = lab.curl(&[url]).body();
    assert_eq!(expected.len(), 300_000);
    let mut received = [0, 0];
    // Ports are random, so a few flows land on either queue.
    for round in 0..8 {
        let outcome = lab.xstack(&["curl", "-v", url]).expect_code(0);
        assert_same_bytes(&outcome.stdout, &expected, &format!("flow {round}"));
        for (of_queue, count) in received.iter_mut().zip(rx_frames(&outcome.stderr)) {
            *of_queue += count;
        }
        let frames: Vec<_> = outcome.stderr.lines().filter(|line| line.starts_with("* frames: ")).collect();
        assert_eq!(frames.len(), 2, "a line for each shard: {}", outcome.stderr);
        assert!(frames.iter().all(|line| line.ends_with(", 0 in use")), "frames are lost: {frames:?}");
    }
    // A file is 200 frames; ARP and DNS are a handful.
    assert!(received.iter().all(|&frames| frames > 200), "{received:?} frames on each queue");
}

/// What `-v` says at the end that each queue has received.
fn rx_frames(stderr: &str) -> Vec<u64> {
    let lines = stderr.lines().filter_map(|line| line.strip_prefix("* device: "));
    let of_queue = |line: &str| {
        let counter = line.split(", ").find_map(|counter| counter.strip_prefix("rx_frames "));
        counter.map_or(0, |count| count.parse().unwrap())
    };
    lines.map(of_queue).collect()
}

#[test]
fn flows_to_a_server_are_served_by_the_shard_of_their_queue() {
    let test = "flows_to_a_server_are_served_by_the_shard_of_their_queue";
    let Some((lab, server)) = serving(test) else { return };
    let mut answers: HashMap<String, usize> = HashMap::new();
    for _ in 0..8 {
        for output in asked_at_once(&lab, 6) {
            *answers.entry(text(&output)).or_default() += 1;
        }
    }
    assert_eq!(answers.values().sum::<usize>(), 48);
    assert!(answers.contains_key("shard 0\n") && answers.contains_key("shard 1\n"), "{answers:?}");
    let said = server.stop();
    assert!(!lab.has_program(), "nothing is left behind");
    for number in 0..2 {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("shard {number}: "))).unwrap();
        let counts: Vec<u64> =
            line.split(", ").map(|count| count.split_once(' ').unwrap().0.parse().unwrap()).collect();
        // Four or five each for a request.
        assert!(counts[0] > 10 && counts[1] > 10, "{said}");
    }
}

#[test]
fn a_shard_that_is_stuck_loses_no_flow_and_holds_up_no_other() {
    let test = "a_shard_that_is_stuck_loses_no_flow_and_holds_up_no_other";
    let Some((lab, server)) = serving(test) else { return };
    thread::scope(|scope| {
        let stuck = scope.spawn(|| {
            let output = ask(&lab, "/compute");
            (output, Instant::now())
        });
        // It has begun when the other queues' connections are opened, and is not over when most are.
        thread::sleep(std::time::Duration::from_millis(500));
        let others: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let output = ask(&lab, "/");
                    (output, Instant::now())
                })
            })
            .collect();
        let (stuck_says, over) = stuck.join().unwrap();
        assert!(stuck_says.starts_with("shard "), "{stuck_says}");
        let others: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
        let by_the_stuck_one = others.iter().filter(|(says, _)| *says == stuck_says).count();
        let meanwhile = others.iter().filter(|(says, at)| *says != stuck_says && *at < over).count();
        assert!(by_the_stuck_one > 0, "all were answered, those by the shard that was stuck, too");
        assert!(meanwhile > 0, "the other shard did not wait");
    });
    server.stop();
}

/// A server with a thread for each of two queues, which says at the end what each carried.
fn serving(test: &str) -> Option<(TestLab, Server)> {
    let lab = TestLab::without_servers_with_queues(test, &["curl"], 2)?;
    let server = Server::start(lab.on(Host::Host, program("thread_per_shard")).args(["xs0", OURS, "80"]));
    Some((lab, server))
}

/// What the server answers the LAN neighbour's curl.
fn ask(lab: &TestLab, path: &str) -> String {
    let url = format!("http://{OURS}{path}");
    let curl = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20", &url];
    lab.text(Host::Peer, &curl)
}

/// So many answers to clients that ask at the same time.
fn asked_at_once(lab: &TestLab, clients: usize) -> Vec<Output> {
    let url = format!("http://{OURS}/");
    let curl = || {
        let mut command = lab.on(Host::Peer, "curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "20", &url]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..clients).map(|_| curl()).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn binding_one_queue_of_two_is_warned_about() {
    let Some(lab) = TestLab::with_queues("binding_one_queue_of_two_is_warned_about", 2) else { return };
    let warned =
        |arguments: &[&str]| lab.xstack(arguments).stderr.contains("only queue 0 of xs0's 2 is bound");
    let url = ["curl", "--silent", "--max-time", "2", "http://example.com/"];
    // Whether an answer comes depends on the queue that it takes; the warning does not.
    assert!(warned(&[&["--queue", "0"], &url[..]].concat()));
    assert!(!warned(&url));
}
