//! Whole connections, and whole stacks, on virtual time. Each test names the rule that it holds us to.

mod acceptance;
mod ack_range;
mod arbitrary;
mod autotune;
mod bbr;
mod close;
mod cubic;
mod delayed_ack;
mod delivery_rate;
#[allow(dead_code, reason = "a vocabulary: not every word is needed at any time")]
mod dsl;
mod ecn;
mod fin;
mod frto;
mod half_open;
mod handshake;
mod hystart;
mod icmp;
mod idle;
mod jumbo;
mod keepalive;
mod listening;
mod loss;
mod mss;
mod nagle;
mod newreno;
mod options;
mod pacing;
mod passive;
mod pmtud;
mod prr;
mod push;
mod rack;
mod receive;
mod repair;
mod reset;
mod robustness;
mod rto;
mod rules;
mod sack_blocks;
mod shrunk_window;
mod simultaneous_open;
mod syn_sent;
mod timestamps;
mod tlp;
mod trace;
mod transfer;
mod undo;
mod unused_window;
mod urgent;
mod user_timeout;
mod user_timeout_option;
mod window;
mod world;
mod zero_window;

use stack_user::{
    device::Umem,
    frame::{FramePool, RxFrame},
};

/// A received frame that holds `bytes`.
fn rx_frame(pool: &mut Umem, bytes: &[u8]) -> RxFrame {
    pool.receive_whole(bytes).expect("chunks")
}

/// Names the seed when an assertion fails, wherever it is.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: seed {}", self.0);
        }
    }
}
