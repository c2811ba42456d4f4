//! What a running stack does when something happens to its interface.

use std::{
    io,
    sync::{Arc, Weak},
};

use super::{
    Running,
    builder::{LongFrames, only_first},
};
use crate::{
    device::{
        interface::{Happening, Interface, Watch},
        remedy::up,
    },
    runtime::Shard,
    telemetry::STORY,
};

/// Follows the interface for as long as the stack runs.
pub(super) async fn follow(
    mut watch: Watch,
    interface: Interface,
    long_frames: LongFrames,
    all_queues: bool,
    running: Weak<Running>,
) {
    loop {
        let happening = watch.next().await;
        let Some(running) = running.upgrade() else { return };
        match happening {
            Ok(happening) => running.heed(happening, &interface, &long_frames, all_queues),
            Err(error) => {
                tracing::warn!("what happens to {} is not noticed any more: {error}", interface.name);
                return;
            }
        }
    }
}

impl Running {
    fn heed(&self, happening: Happening, interface: &Interface, long_frames: &LongFrames, all_queues: bool) {
        let name = &interface.name;
        match happening {
            Happening::CarrierLost => {
                tracing::warn!("{name} has lost its carrier: connections wait until it is back");
            }
            Happening::Down => {
                tracing::warn!("{name} was switched off: connections wait for `{}`", up(name));
            }
            Happening::Back => {
                tracing::warn!("{name} is back: its addresses are announced again");
                self.shards[0].with(|core, now| core.stack.link_is_back(now));
            }
            Happening::Mtu(mtu) => {
                tracing::info!(target: STORY, "{name} has an MTU of {mtu} now");
                long_frames.tell_of_new(name, mtu);
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                self.shards.iter().for_each(|shard| shard.with(|core, _| core.stack.set_mtu(mtu)));
            }
            Happening::Mac(mac) => self.stop(&format!(
                "{name} has another hardware address now, {mac}, and we are known by {}: start again",
                interface.mac
            )),
            Happening::Queues(queues) => self.check_queues(queues as usize, interface, all_queues),
            Happening::Removed => self.stop(&format!("{name} was removed, or moved elsewhere")),
        }
    }

    /// A queue that was added has no socket, and nobody may be left who could open one: what arrives there is lost. Fewer
    /// than there are sockets there can't be, the kernel sees to that.
    fn check_queues(&self, queues: usize, interface: &Interface, all_queues: bool) {
        let (name, bound) = (&interface.name, self.shards.len());
        if !all_queues || queues <= bound {
            return;
        }
        // Where the hash does not use them, nothing arrives there. Whoever has given up its privileges may not be told.
        let uses_new = |table: Vec<u32>| table.iter().any(|&queue| queue as usize >= bound);
        if interface.rx_table().is_some_and(|table| !uses_new(table)) {
            tracing::warn!(
                "{name} receives on {queues} queues now, of which {bound} are bound: its hash must not use the others"
            );
            return;
        }
        self.stop(&format!(
            "{name} receives on {queues} queues now, of which {bound} are bound, and frames for us on the others would be \
             lost: start again, which binds all, or say {} first",
            only_first(name, bound as u32)
        ));
    }

    fn stop(&self, why: &str) {
        let error = io::Error::new(io::ErrorKind::NetworkDown, why);
        self.shards.iter().for_each(|shard: &Arc<Shard>| shard.stop(&error));
    }
}
