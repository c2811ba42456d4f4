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

/// Says so if frames of the interface's MTU can't be had, or not without a copy, and what would help.
pub(super) fn tell(interface: &Interface, bound: &Bound, asked: Copying) {
    let Interface { name, mtu, .. } = interface;
    let longest = bound.longest_in_one();
    let smaller =
        Change::Mtu { interface: name.clone(), mtu: (longest - KEPT_BY_DRIVERS) as u32, was: Some(*mtu) }
            .command();
    if !bound.takes(*mtu) {
        let why = match asked {
            Copying::ZeroCopy => {
                "its driver's zero-copy takes no frame in several chunks (another --mode does)"
            }
            Copying::Auto | Copying::Copy => "the kernel takes no frame in several chunks: Linux 6.6 does",
        };
        tracing::warn!(
            "{name} takes packets of {mtu} bytes, but {why}: TCP asks for shorter ones, and what others send that is longer \
             than {longest} bytes is lost, unless `{smaller}` comes first, there and here"
        );
    } else if bound.multi_buffer
        && !bound.zero_copy
        && asked == Copying::Auto
        && has_zero_copy_in_one_chunk(interface)
    {
        tracing::info!(
            target: STORY,
            "{name}'s driver has zero-copy for frames in one chunk only, so these are copied: `{smaller}`, there and here, \
             does without"
        );
    }
}

/// Whether the driver has zero-copy, but not for frames in several chunks.
fn has_zero_copy_in_one_chunk(interface: &Interface) -> bool {
    let features = Netdev::find().ok().flatten().and_then(|netdev| netdev.features(interface.index).ok());
    features.is_some_and(|features| {
        features.xdp.contains(XdpFeatures::XSK_ZEROCOPY) && features.zero_copy_max_segments == Some(1)
    })
}
