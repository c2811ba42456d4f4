//! What a script is written in: segments that are injected, segments that are expected, silence, calls of the
//! application, and time.
//!
//! ```text
//! let mut s = Script::established(config(), plain_options());
//! s.write(10);
//! s.expect(seg("P.").seq(0).ack(0).len(10));
//! s.inject(seg(".").seq(0).ack(10));
//! s.expect_silence();
//! s.finish();
//! ```
//!
//! Numbers in a script are relative: `seq` and `ack` of 0 are the first byte after SYN on either side, so SYN itself has
//! -1. When a script fails, its whole history is told, as tcpdump would write it, with what was expected and what came
//! beneath each other.

mod row;
mod script;
mod seg;
mod stack_script;
mod trace;

pub(crate) use script::{Script, config};
pub(crate) use seg::{Seg, all_options, pattern, plain_options, sack_options, seg};
pub(crate) use stack_script::{PEER, Ports, StackScript, US};
