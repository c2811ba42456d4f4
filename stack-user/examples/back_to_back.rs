//! Two stacks, wired back to back on virtual time: one listens, one connects, and a megabyte goes across.
//!
//! No socket, no thread, no clock: whoever drives a [`Stack`] moves its frames and tells it the time. That is all that a
//! simulator, a fuzzer, or an event loop of another kind needs. Run it with `cargo run --example back_to_back`.

use stack_user::{
    device::Umem,
    frame::FramePool,
    net::{acd::Schedule, route::Prefix},
    rng::Rng,
    stack::{AddressEvent, Stack},
    time::{Duration, Instant},
    wire::MacAddr,
};

const SERVER: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 2];
/// How long a frame takes from one end to the other.
const DELAY: Duration = Duration::from_millis(5);

pub(crate) fn main() {
    let mut now = Instant::ZERO;
    let mut server = stack(now, SERVER);
    let mut client = stack(now, CLIENT);
    while server.address_state(SERVER.into()) != Some(AddressEvent::Claimed)
        || client.address_state(CLIENT.into()) != Some(AddressEvent::Claimed)
    {
        step(&mut now, &mut server, &mut client);
    }

    let listener = server.tcp_listen(now, (SERVER, 80).into(), 1).expect("a free port");
    let (writer, _) = client.tcp_connect(now, (SERVER, 80).into()).expect("a route");
    let data: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
    let (mut sent, mut got, mut reader, mut buffer) = (0, Vec::new(), None, vec![0; 65_536]);
    while got.len() < data.len() {
        // A call that can't go on says so, and an event tells when it can. Here we just try again after each step.
        sent += client.tcp_write(now, writer, &data[sent..]).unwrap_or(0);
        reader = reader.or_else(|| server.tcp_accept(now, listener).map(|(id, _)| id));
        if let Some(Ok(n)) = reader.map(|id| server.tcp_read(now, id, &mut buffer)) {
            got.extend_from_slice(&buffer[..n]);
        }
        step(&mut now, &mut server, &mut client);
    }

    assert!(got == data, "what arrives is what was sent");
    println!("{} bytes in {} of virtual time", got.len(), now);
}

/// A stack that starts to claim its address.
fn stack(now: Instant, address: [u8; 4]) -> Stack<Umem> {
    let [.., last] = address;
    let frames = Umem::on_heap(4096).expect("memory");
    let mut stack =
        Stack::new(now, MacAddr([2, 0, 0, 0, 0, last]), None, frames, Rng::from_seed(last.into()));
    let network = Prefix::new([192, 0, 2, 0].into(), 24).expect("a prefix");
    stack
        .claim(now, address.into(), network, None, 1500, Schedule::Fast)
        .expect("an address of that network");
    stack
}

/// Carries what both have to send to the other one, [`DELAY`] later, or goes to the next time when something is due.
fn step(now: &mut Instant, a: &mut Stack<Umem>, b: &mut Stack<Umem>) {
    let (from_a, from_b) = (drain(*now, a), drain(*now, b));
    let due = [a.poll_timeout(), b.poll_timeout()].into_iter().flatten().min();
    let idle = from_a.is_empty() && from_b.is_empty();
    *now = if idle { due.unwrap_or(*now).max(*now) } else { *now + DELAY };
    for (stack, frames) in [(b, from_a), (a, from_b)] {
        for bytes in frames {
            let frame = stack.pool_mut().receive_whole(&bytes).expect("free chunks");
            stack.handle_frame(*now, frame);
        }
        stack.handle_timeout(*now);
    }
}

/// All frames that a stack has to send; it gets them back as sent at once.
fn drain(now: Instant, stack: &mut Stack<Umem>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some(frame) = stack.poll_transmit(now) {
        frames.push(stack.pool().tx_bytes(&frame).to_vec());
        stack.handle_completion(now, frame.into_completed());
    }
    frames
}
