//! Very many connections: what an idle one takes, and that the others don't notice it. A test binary of its own, since
//! it replaces the allocator. `cargo xtask bench conns` does the same with a million.

mod counting;
mod crowd;

use crowd::{Crowd, bytes_per_end};
use stack_user::{
    tcp::{Config, KeepAlive},
    time::Duration,
};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// As many as an unoptimised build opens in some seconds; a power of two, so that tables are as full as they get.
const CONNECTIONS: usize = 1 << 13;

/// What an idle connection may take at each end, with its places in all tables. More is a change to think about: a million
/// of them are this many megabytes.
const MAX_IDLE_BYTES: usize = 512;

#[test]
fn an_idle_connection_takes_half_a_kilobyte() {
    let mut crowd = Crowd::new(&Config::default(), CONNECTIONS);
    let before = counting::held();
    crowd.open(CONNECTIONS);
    let clients = crowd.clients.clone();
    crowd.ask(&clients);
    let busy = bytes_per_end(before, CONNECTIONS);
    crowd.run(Duration::from_secs(5));
    assert!(crowd.all_rest());
    let idle = bytes_per_end(before, CONNECTIONS);
    println!("{busy} bytes for each end of a connection that was just used, {idle} when it rests");
    assert!(idle <= MAX_IDLE_BYTES, "{idle} bytes");
    assert!(busy > 3 * idle, "{busy} bytes: nothing is gained");

    crowd.ask(&clients);
    crowd.run(Duration::from_secs(5));
    assert!(crowd.all_rest());
    assert!(bytes_per_end(before, CONNECTIONS) <= idle, "using them leaves nothing behind");
}

#[test]
fn idle_connections_cost_no_work() {
    let mut crowd = Crowd::new(&Config::default(), CONNECTIONS);
    crowd.open(CONNECTIONS);
    // For as long as neighbours are looked after.
    crowd.run(Duration::from_secs(600));
    assert!(crowd.all_rest());
    assert_eq!(crowd.due(), None, "there is nothing to wait for");
    let (frames, calls) = (crowd.frames, counting::calls());
    crowd.run(Duration::from_secs(86_400));
    assert_eq!((crowd.frames, counting::calls()), (frames, calls));
    let clients = crowd.clients.clone();
    crowd.ask(&clients);
}

/// The work, as far as a clock can show it: a segment to one of many costs what one to one of few does, in order of
/// magnitude, since memory that is not in a cache is slower.
#[test]
fn a_segment_to_one_of_many_costs_as_much_as_to_one_of_few() {
    let few = CONNECTIONS / 32;
    let mut crowd = Crowd::new(&Config::default(), CONNECTIONS);
    crowd.open(few);
    let clients = crowd.clients.clone();
    let alone = crowd.cost(&clients);
    crowd.open(CONNECTIONS);
    crowd.run(Duration::from_secs(5));
    let spread: Vec<_> = crowd.clients.iter().copied().step_by(CONNECTIONS / few).collect();
    let among_many = crowd.cost(&spread);
    println!("a question and its answer: {alone:?} among {few}, {among_many:?} among {CONNECTIONS}");
    assert!(among_many < 5 * alone, "{among_many:?}, against {alone:?}");
}

#[test]
fn all_of_them_are_kept_alive() {
    let connections = CONNECTIONS / 4;
    let keepalive = KeepAlive { idle: Duration::from_secs(60), ..KeepAlive::default() };
    let mut crowd = Crowd::new(&Config { keepalive: Some(keepalive), ..Config::default() }, connections);
    crowd.open(connections);
    crowd.run(Duration::from_secs(5));
    assert!(crowd.all_rest());
    let (frames, wakes) = (crowd.frames, crowd.wakes);
    let minutes = 10;
    crowd.run(Duration::from_secs(60 * minutes));
    let (frames, wakes) = (crowd.frames - frames, crowd.wakes - wakes);
    // The end that asks first hears of the other one, which then need not ask.
    let least = 2 * connections * (minutes as usize - 1);
    assert!((least..=3 * least).contains(&frames), "{frames} frames: a probe and an answer each minute");
    // All that is due in a tick is served at once, and connections were opened in bursts.
    assert!(wakes < frames, "{wakes} times something was due");
    let clients = crowd.clients.clone();
    crowd.ask(&clients);
}
