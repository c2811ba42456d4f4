//! What the kernel's `netdev` family tells of a veth, of which we know what it can do.

use std::time::Duration;

use stack_user::device::{
    interface::netdev::{Direction, NapiSettings, Netdev, RxMetadata, XdpFeatures, XskFeatures},
    xdp::Options,
};

use crate::{
    End,
    lab::{self, Lab},
};

/// A veth pair, and the family, if this kernel has it.
fn lab_and_netdev(name: &str) -> Option<Lab> {
    let lab = Lab::new(name, 2)?;
    let is_there = Netdev::find().expect("generic netlink answers").is_some();
    if !is_there {
        println!("SKIP af_xdp::{name}: this kernel has no netdev family");
    }
    is_there.then_some(lab)
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect("the interface")
}

#[test]
fn a_veth_says_what_it_can_do() {
    let Some(lab) = lab_and_netdev("features") else { return };
    lab.inside(|| {
        let netdev = Netdev::find().expect("an answer").expect("the family");
        let features = netdev.features(index(lab::ONE)).expect("the interface");
        assert!(features.xdp.contains(XdpFeatures::BASIC | XdpFeatures::REDIRECT), "{}", features.xdp);
        assert!(!features.xdp.contains(XdpFeatures::XSK_ZEROCOPY), "{}", features.xdp);
        assert_eq!(features.zero_copy_max_segments, None, "of zero-copy only");
        if let Some(metadata) = features.rx_metadata {
            assert!(metadata.contains(RxMetadata::TIMESTAMP | RxMetadata::HASH), "{metadata}");
        }
        if let Some(xsk) = features.xsk {
            assert!(!xsk.contains(XskFeatures::TX_CHECKSUM), "{xsk}");
        }
    });
}

#[test]
fn a_queue_says_who_is_bound_to_it_and_its_napi_keeps_what_it_is_told() {
    let Some(lab) = lab_and_netdev("napi") else { return };
    lab.inside(|| {
        let netdev = Netdev::find().expect("an answer").expect("the family");
        let interface = index(lab::ONE);
        let Some(queues) = netdev.queues(interface).expect("the interface") else {
            println!("SKIP af_xdp::napi: this kernel does not tell of queues");
            return;
        };
        let of = |direction| queues.iter().filter(move |queue| queue.direction == direction).count();
        assert_eq!((of(Direction::Rx), of(Direction::Tx)), (2, 2));
        assert!(queues.iter().all(|queue| !queue.has_xsk));

        let _end = End::open(lab::ONE, &[1], &Options::default());
        let queues = netdev.queues(interface).expect("the interface").expect("as before");
        let bound: Vec<_> =
            queues.iter().filter(|queue| queue.has_xsk).map(|queue| (queue.direction, queue.id)).collect();
        println!("{queues:?}");
        assert_eq!(bound, [(Direction::Rx, 1), (Direction::Tx, 1)]);

        // A veth has a NAPI for each queue as long as it has a program.
        let napis = netdev.napis(interface).expect("the interface").expect("as before");
        println!("{napis:?}");
        assert_eq!(napis.len(), 2);
        let napi = napis[0];
        assert_eq!((napi.interface, napi.irq), (interface, None));
        let Some(before) = napi.defer_hard_irqs else {
            println!("SKIP af_xdp::napi: this kernel has no settings of single NAPIs");
            return;
        };
        assert_eq!(before, 0);
        let settings = NapiSettings {
            defer_hard_irqs: Some(3),
            gro_flush_timeout: Some(Duration::from_secs(5)),
            ..NapiSettings::default()
        };
        netdev.set_napi(napi.id, &settings).expect("root may");
        let after = netdev.napi(napi.id).expect("an answer").expect("it is there");
        assert_eq!((after.defer_hard_irqs, after.gro_flush_timeout), (Some(3), Some(Duration::from_secs(5))));
        let other = netdev.napi(napis[1].id).expect("an answer").expect("it is there");
        assert_eq!(other, napis[1], "the other one is as it was");
    });
}
