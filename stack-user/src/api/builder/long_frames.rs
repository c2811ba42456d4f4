//! Frames that do not fit in a chunk: what became of them.

use crate::{
    device::{
        interface::{
            Interface,
            netdev::{Netdev, XdpFeatures},
        },
        remedy::Change,
        xdp::{Bound, Copying},
    },
    telemetry::STORY,
};

/// Bytes at the end of a chunk that drivers keep for themselves in zero-copy mode: the kernel's `skb_shared_info`, and a few
/// more. Lower, and they refuse the MTU that we advise; higher, and it is smaller than it has to be.
const KEPT_BY_DRIVERS: usize = 324;

/// What became of the frames of one stack.
pub(in crate::api) struct LongFrames {
    bound: Bound,
}

impl LongFrames {
    pub(super) fn new(bound: Bound) -> Self {
        Self { bound }
    }

    /// Says so if frames of the interface's MTU can't be had, or not without a copy, and what would help.
    pub(super) fn tell(&self, interface: &Interface, asked: Copying) {
        let Interface { name, mtu, .. } = interface;
        let (longest, smaller) = (self.bound.longest_in_one(), self.smaller(name, *mtu));
        if !self.bound.takes(*mtu) {
            let why = match asked {
                Copying::ZeroCopy => {
                    "its driver's zero-copy takes no frame in several chunks (another --mode does)"
                }
                Copying::Auto | Copying::Copy => {
                    "the kernel takes no frame in several chunks: Linux 6.6 does"
                }
            };
            tracing::warn!(
                "{name} takes packets of {mtu} bytes, but {why}: TCP asks for shorter ones, and what others send that is \
                 longer than {longest} bytes is lost, unless `{smaller}` comes first, there and here"
            );
        } else if self.bound.multi_buffer
            && !self.bound.zero_copy
            && asked == Copying::Auto
            && has_zero_copy_in_one_chunk(interface)
        {
            tracing::info!(
                target: STORY,
                "{name}'s driver has zero-copy for frames in one chunk only, so these are copied: `{smaller}`, there and \
                 here, does without"
            );
        }
    }

    /// Says so if the interface has got an MTU whose frames can't be had by sockets that were bound for its old one.
    pub(in crate::api) fn tell_of_new(&self, interface: &str, mtu: u32) {
        if !self.bound.takes(mtu) {
            let (longest, smaller) = (self.bound.longest_in_one(), self.smaller(interface, mtu));
            tracing::warn!(
                "{interface} takes packets of {mtu} bytes now, and was bound for frames in one chunk: TCP goes on asking for \
                 shorter ones, and what others send that is longer than {longest} bytes is lost. Start again, which binds \
                 for the new MTU, or say `{smaller}`, there and here"
            );
        }
    }

    /// How to have no frame that needs more than a chunk, whatever the driver.
    fn smaller(&self, interface: &str, was: u32) -> String {
        let mtu = (self.bound.longest_in_one() - KEPT_BY_DRIVERS) as u32;
        Change::Mtu { interface: interface.to_owned(), mtu, was: Some(was) }.command()
    }
}

/// Whether the driver has zero-copy, but not for frames in several chunks.
fn has_zero_copy_in_one_chunk(interface: &Interface) -> bool {
    let features = Netdev::find().ok().flatten().and_then(|netdev| netdev.features(interface.index).ok());
    features.is_some_and(|features| {
        features.xdp.contains(XdpFeatures::XSK_ZEROCOPY) && features.zero_copy_max_segments == Some(1)
    })
}
