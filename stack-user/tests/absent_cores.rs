//! What `cargo xtask bench mix` says of cores that are away, by hand.

#![allow(missing_docs)]

mod absence;

use std::time::Duration;

use absence::{back, delays, quantile};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_core_is_back_where_its_absence_ends() {
    let gaps = [(ms(10), ms(20)), (ms(30), ms(31))];
    for (at, there) in [(0, 0), (9, 9), (10, 20), (19, 20), (20, 20), (25, 25), (30, 31), (31, 31), (99, 99)]
    {
        assert_eq!(back(&gaps, ms(at)), ms(there), "at {at} ms");
    }
    assert_eq!(back(&[], ms(7)), ms(7));
}

#[test]
fn a_request_waits_for_one_core_after_the_other() {
    // Due at 0, 1, 2, … 9 ms. The client is away from 2 to 4, the server from 4 to 6, the client again when that is over.
    let (client, server) = ([(ms(2), ms(4)), (ms(6), ms(7))], [(ms(4), ms(6))]);
    let delays = delays(&client, &server, ms(10), 1000);
    assert_eq!(delays, [0, 0, 5, 4, 3, 2, 1, 0, 0, 0].map(ms));
}

#[test]
fn quantiles_are_of_what_there_is() {
    let sorted: Vec<_> = (1..=100).map(ms).collect();
    assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99)), (ms(51), ms(100)));
    assert_eq!((quantile(&sorted[..1], 0.99), quantile(&[], 0.5)), (ms(1), Duration::ZERO));
}
