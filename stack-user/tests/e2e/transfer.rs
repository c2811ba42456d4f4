//! Large bodies arrive whole, also through a bad network.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::support::{Host, Nginx, TestLab, XSTACK, assert_same_bytes, run_for, sized};

const MB: usize = 1_000_000;

#[test]
fn a_large_file_arrives_whole() {
    let Some(lab) = TestLab::without_servers("a_large_file_arrives_whole", &["nginx", "ss"]) else { return };
    let content = content(sized(20, 100) * MB);
    let nginx = Nginx::start(&lab);
    let url = nginx.serve("file", &content);
    let arguments = ["curl", "--silent", "--show-error", &url];
    let outcome = run_for(lab.on(Host::Host, XSTACK).args(arguments), Duration::from_secs(180));
    let took = outcome.took;
    assert_same_bytes(&outcome.body(), &content, "the file");
    println!("{} MB in {took:?}", content.len() / MB);
}

#[test]
fn a_file_arrives_whole_through_faults() {
    let test = "a_file_arrives_whole_through_faults";
    let Some(lab) = TestLab::without_servers(test, &["nginx", "ss"]) else { return };
    let content = content(sized(2, 100) * MB);
    let nginx = Nginx::start(&lab);
    let url = nginx.serve("file", &content);
    for seed in 1..=sized(3, 10) {
        let fault = format!("loss=0.05,reorder=0.05,dup=0.02,seed={seed}");
        let arguments = ["--fault", &fault, "curl", "--silent", "--show-error", &url];
        let limit = Duration::from_secs(sized(120, 1800));
        let outcome = run_for(lab.on(Host::Host, XSTACK).args(arguments), limit);
        assert_same_bytes(&outcome.body(), &content, &fault);
    }
}

/// Bytes that neither repeat nor compress: any that is lost, doubled or moved shows.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
    bytes
}
