//! The same transfers between the kernel's TCP and ours, as client and as server, in both directions, through links
//! with faults: every byte must be there.

use stack_user::tcp::congestion::Algorithm;

use crate::support::sized;
use crate::wan::{Amount, Direction, Path, Tcp, transfer};

/// A path for each kind of trouble.
const FAULTS: [(&str, &str); 4] = [
    ("clean", "delay=1ms"),
    ("losses, disorder and doubles", "delay=2ms,loss=2%,reorder=5%,dup=2%"),
    ("bursts of losses on a slow link", "delay=10ms,rate=20mbit,queue=40000,loss=1%,burst=3"),
    ("damage", "delay=1ms,corrupt=2%"),
];

fn run(test: &str, client: Tcp, server: Tcp) {
    for (what, faults) in FAULTS {
        let spec = format!("{faults},seed=11").parse().expect("faults");
        let Some(path) = Path::new(test, spec) else { return };
        for direction in [Direction::Up, Direction::Down, Direction::Both] {
            let outcome =
                transfer(&path, client, server, direction, Amount::Bytes(sized(500_000, 10_000_000)));
            println!("{what}, {direction:?}: {} bytes in {:?}", outcome.bytes, outcome.took);
        }
    }
}

#[test]
fn our_client_and_the_kernels_server() {
    run("our_client_and_the_kernels_server", Tcp::Ours(Algorithm::default()), Tcp::Kernel);
}

#[test]
fn the_kernels_client_and_our_server() {
    run("the_kernels_client_and_our_server", Tcp::Kernel, Tcp::Ours(Algorithm::default()));
}

#[test]
fn our_client_and_our_server() {
    let ours = Tcp::Ours(Algorithm::default());
    run("our_client_and_our_server", ours, ours);
}

/// If the relay lost bytes, or the check were blind, the tests above would prove nothing.
#[test]
fn the_kernels_client_and_server() {
    run("the_kernels_client_and_server", Tcp::Kernel, Tcp::Kernel);
}
