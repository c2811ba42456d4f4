//! One connection that carries as much as it can, by MTU.

use super::link;
use crate::bench::case::{Case, Content, Entry, Link, Plan, Process, Read, Ready, Scene, Side};
use crate::bench::empty_program;
use crate::bench::metric::GOODPUT;
use crate::bench::network::{INTERFACE, address};

pub(super) const KERNEL: &str = "kernel ↔ kernel, all offloads";
pub(super) const KERNEL_WITHOUT: &str = "kernel ↔ kernel, no tso, gso, gro";
pub(super) const KERNEL_BESIDE_XDP: &str = "kernel ↔ kernel, an empty XDP program on the receiver";

/// Where iperf3 listens.
pub(super) const PORT: u16 = 5201;

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    [(1500, "bulk-1500"), (3498, "bulk-3498"), (9000, "bulk-9000")]
        .into_iter()
        .map(|(mtu, name)| Case {
            name,
            about: format!("One stream from the left to the right, MTU {mtu}: payload that arrives."),
            entries: entries(plan, mtu),
            targets: Vec::new(),
            plotted: GOODPUT,
            most_rounds: usize::MAX,
        })
        .collect()
}

fn entries(plan: &Plan, mtu: u32) -> Vec<Entry> {
    const EQUAL_SEGMENTS: &str = "tso off gso off gro off";
    let without = Link { left: EQUAL_SEGMENTS, right: EQUAL_SEGMENTS, ..link(mtu) };
    let beside = with_empty_program(kernel_to_kernel(plan, link(mtu)));
    vec![
        Entry::scene(KERNEL, kernel_to_kernel(plan, link(mtu))),
        Entry::scene(KERNEL_WITHOUT, kernel_to_kernel(plan, without)),
        Entry::scene(KERNEL_BESIDE_XDP, beside),
    ]
}

/// iperf3 at both ends.
pub(super) fn kernel_to_kernel(plan: &Plan, link: Link) -> Scene {
    Scene {
        link,
        files: Vec::new(),
        background: vec![Process::right(iperf3_server()).once(Ready::Listens(PORT))],
        client: Process::left(iperf3_client(plan, address::KERNEL_RIGHT)),
        read: iperf3_says(),
    }
}

/// What came to the receiver, by iperf3's JSON.
pub(super) fn iperf3_says() -> Read {
    Read::Json(vec![(GOODPUT, "/end/sum_received/bits_per_second")])
}

pub(super) fn iperf3_server() -> String {
    format!("iperf3 --server --one-off --port {PORT}")
}

pub(super) fn iperf3_client(plan: &Plan, server: &str) -> String {
    let Plan { seconds, warm_up, .. } = plan;
    format!("iperf3 --client {server} --port {PORT} --time {seconds} --omit {warm_up} --json")
}

/// The same with an XDP program that does nothing on the receiver's interface.
pub(super) fn with_empty_program(mut scene: Scene) -> Scene {
    let section = empty_program::SECTION;
    let attach = format!("ip link set dev {INTERFACE} xdpdrv obj {{directory}}/empty.o sec {section}");
    scene.files.push(("empty.o", Content::Made(empty_program::object)));
    scene.background.insert(0, Process::new(Side::Right, attach).once(Ready::Ended));
    scene
}
