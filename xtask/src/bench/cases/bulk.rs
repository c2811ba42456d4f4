//! One connection that carries as much as it can, by MTU.

use super::{Mode, kernel_to_ours, link, ours_to_kernel, xstack_left, xstack_right};
use crate::bench::case::{Case, Content, Entry, Link, Plan, Process, Read, Ready, Scene, Side, Teller};
use crate::bench::empty_program;
use crate::bench::metric::GOODPUT;
use crate::bench::network::{INTERFACE, address};
use crate::bench::target::{At, Goal, Target};

pub(super) const KERNEL: &str = "kernel ↔ kernel, all offloads";
const KERNEL_WITHOUT: &str = "kernel ↔ kernel, no tso, gso, gro";
const KERNEL_BESIDE_XDP: &str = "kernel ↔ kernel, an empty XDP program on the receiver";
const TO_KERNEL: &str = "ours → kernel, spinning";
const FROM_KERNEL: &str = "kernel → ours, spinning";
const SMOLTCP_TO_KERNEL: &str = "smoltcp → kernel, spinning";
const SMOLTCP_FROM_KERNEL: &str = "kernel → smoltcp, spinning";

/// Where iperf3 and `xstack bench server` listen.
pub(super) const PORT: u16 = 5201;

/// What `xstack bench server` says when it does.
pub(super) const SERVED: Ready = Ready::Says("benchmarks are served at");

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    [(1500, "bulk-1500"), (3498, "bulk-3498"), (9000, "bulk-9000")]
        .into_iter()
        .map(|(mtu, name)| Case {
            name,
            about: format!("One stream from the left to the right, MTU {mtu}: payload that arrives."),
            entries: entries(plan, mtu),
            targets: targets(mtu),
            plotted: GOODPUT,
            most_rounds: usize::MAX,
        })
        .collect()
}

fn entries(plan: &Plan, mtu: u32) -> Vec<Entry> {
    const EQUAL_SEGMENTS: &str = "tso off gso off gro off";
    let without = Link { left: EQUAL_SEGMENTS, right: EQUAL_SEGMENTS, ..link(mtu) };
    let spinning = Mode::Spinning;
    let mut entries = Vec::new();
    for mode in Mode::ALL {
        entries.push(Entry::scene(pump_name(mode), pump(plan, link(mtu), mode)));
        let ours = transfer(link(mtu), server_ours(mode), client_ours(plan, mode, address::OURS_RIGHT));
        entries.push(Entry::scene(ours_name(mode), ours));
    }
    entries.extend([
        Entry::scene(
            TO_KERNEL,
            transfer(
                ours_to_kernel(mtu),
                server_kernel(),
                client_ours(plan, spinning, address::KERNEL_RIGHT),
            ),
        ),
        Entry::scene(
            FROM_KERNEL,
            transfer(kernel_to_ours(mtu), server_ours(spinning), client_kernel(plan, address::OURS_RIGHT)),
        ),
        Entry::scene(SMOLTCP_TO_KERNEL, smoltcp_to_kernel(plan, ours_to_kernel(mtu))),
        Entry::scene(SMOLTCP_FROM_KERNEL, kernel_to_smoltcp(plan, kernel_to_ours(mtu))),
        Entry::scene(KERNEL, kernel_to_kernel(plan, link(mtu))),
        Entry::scene(KERNEL_WITHOUT, kernel_to_kernel(plan, without)),
        Entry::scene(KERNEL_BESIDE_XDP, with_empty_program(kernel_to_kernel(plan, link(mtu)))),
    ]);
    entries
}

fn targets(mtu: u32) -> Vec<Target> {
    let target = |what: &str, ours: &str, beside: &str, times| {
        let what = format!("bulk, {what}, MTU {mtu}");
        Target::ratio(what, At::new(ours, GOODPUT), At::new(beside, GOODPUT), Goal::LeastTimes(times))
    };
    let both = |mode: Mode| {
        target(&format!("ours ↔ ours, {}", mode.name()), &ours_name(mode), &pump_name(mode), 0.95)
    };
    let mut targets = Mode::ALL.map(both).to_vec();
    match mtu {
        1500 => targets.extend([
            target("kernel → ours", FROM_KERNEL, KERNEL_BESIDE_XDP, 1.6),
            target("kernel → ours", FROM_KERNEL, SMOLTCP_FROM_KERNEL, 1.1),
            target("ours → kernel", TO_KERNEL, SMOLTCP_TO_KERNEL, 1.2),
        ]),
        3498 => targets.push(target("ours → kernel", TO_KERNEL, KERNEL, 1.0)),
        _ => {}
    }
    targets
}

fn ours_name(mode: Mode) -> String {
    format!("ours ↔ ours, {}", mode.name())
}

fn pump_name(mode: Mode) -> String {
    format!("raw pump, {}", mode.name())
}

/// Frames without a protocol. What of them is payload would be that of full segments.
fn pump(plan: &Plan, link: Link, mode: Mode) -> Scene {
    let Plan { seconds, warm_up, .. } = plan;
    let receive = xstack_right(mode, &format!("bench pump rx --time {seconds} --interval 0 --json"));
    // Sending outlasts counting, which begins with the first frame.
    let time = seconds + warm_up;
    let send = format!("bench pump tx {} --time {time} --interval 0 --json", address::OURS_RIGHT);
    Scene {
        link,
        files: Vec::new(),
        // The sender asks for the receiver's MAC address until it comes, and takes as long to come up itself.
        background: vec![Process::right(receive)],
        client: Process::left(xstack_left(mode, &send)),
        teller: Teller::Background(0),
        read: Read::Json(vec![(GOODPUT, "/payload_bits_per_second")]),
    }
}

/// smoltcp over our device, which always polls, and the kernel's end of its connection. What counts is what came.
fn smoltcp_to_kernel(plan: &Plan, link: Link) -> Scene {
    let sink = Process::right(format!("{{bench:smoltcp}} sink {}:{PORT}", address::KERNEL_RIGHT));
    Scene {
        link,
        files: Vec::new(),
        background: vec![sink.once(Ready::Listens(PORT))],
        client: Process::left(format!(
            "{} --time {}",
            smoltcp("send", address::KERNEL_RIGHT, address::OURS_LEFT),
            plan.seconds + plan.warm_up
        )),
        teller: Teller::Background(0),
        read: smoltcp_says(),
    }
}

/// The other way round: smoltcp connects, and the kernel sends.
fn kernel_to_smoltcp(plan: &Plan, link: Link) -> Scene {
    let time = plan.seconds + plan.warm_up;
    let source = format!("{{bench:smoltcp}} source {}:{PORT} --time {time}", address::KERNEL_LEFT);
    Scene {
        link,
        files: Vec::new(),
        background: vec![Process::left(source).once(Ready::Listens(PORT))],
        client: Process::right(smoltcp("receive", address::KERNEL_LEFT, address::OURS_RIGHT)),
        teller: Teller::Client,
        read: smoltcp_says(),
    }
}

/// smoltcp's end, with rings as those of ours that spin.
fn smoltcp(role: &str, to: &str, from: &str) -> String {
    format!("{{bench:smoltcp}} {role} {to}:{PORT} --interface {INTERFACE} --address {from} --ring-size 512")
}

fn smoltcp_says() -> Read {
    Read::Json(vec![(GOODPUT, "/bits_per_second")])
}

/// iperf3 at both ends.
pub(super) fn kernel_to_kernel(plan: &Plan, link: Link) -> Scene {
    transfer(link, server_kernel(), client_kernel(plan, address::KERNEL_RIGHT))
}

/// Both ends speak iperf3's protocol, whosever TCP they have. What came is what the receiver says.
fn transfer(link: Link, server: Process, client: Process) -> Scene {
    Scene {
        link,
        files: Vec::new(),
        background: vec![server],
        client,
        teller: Teller::Client,
        read: Read::Json(vec![(GOODPUT, "/end/sum_received/bits_per_second")]),
    }
}

fn server_kernel() -> Process {
    Process::right(format!("iperf3 --server --one-off --port {PORT}")).once(Ready::Listens(PORT))
}

fn server_ours(mode: Mode) -> Process {
    Process::right(xstack_right(mode, "bench server --one-off --interval 0")).once(SERVED)
}

fn client_kernel(plan: &Plan, server: &str) -> Process {
    Process::left(format!("iperf3 {}", client_options(plan, server)))
}

fn client_ours(plan: &Plan, mode: Mode, server: &str) -> Process {
    let options = client_options(plan, server).replacen("--client ", "", 1);
    Process::left(xstack_left(mode, &format!("bench client {options}")))
}

fn client_options(plan: &Plan, server: &str) -> String {
    let Plan { seconds, warm_up, .. } = plan;
    format!("--client {server} --port {PORT} --time {seconds} --omit {warm_up} --interval 0 --json")
}

/// The same with an XDP program that does nothing on the receiver's interface.
pub(super) fn with_empty_program(mut scene: Scene) -> Scene {
    let section = empty_program::SECTION;
    let attach = format!("ip link set dev {INTERFACE} xdpdrv obj {{directory}}/empty.o sec {section}");
    scene.files.push(("empty.o", Content::Made(empty_program::object)));
    scene.background.insert(0, Process::new(Side::Right, attach).once(Ready::Ended));
    scene
}
