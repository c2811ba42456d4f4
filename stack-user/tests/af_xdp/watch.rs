//! What happens to an interface is told.

use std::{process::Command, time::Duration};

use stack_user::{
    device::interface::{self, Happening, Watch},
    wire::MacAddr,
};

use crate::lab::{self, Lab};

/// The kernel keeps as many notices as a socket has room for, and then says that there were more.
#[test]
fn queues_are_asked_for_when_notices_were_lost() {
    /// Several times as many as there is room for where nobody set `net.core.rmem_default`.
    const NOTICES: usize = 1_000;
    let Some(lab) = Lab::new("overflow", 2) else { return };
    lab.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // In one shell, since each takes the kernel no time.
        let shell = |script: String| {
            assert!(Command::new("sh").args(["-ec", &script]).status().expect("running sh").success());
        };
        let one = lab::ONE;
        shell(format!("ethtool -L {one} rx 1"));
        let found = runtime.block_on(interface::find(Some(one))).expect("it is up");
        let mut watch = {
            let _entered = runtime.enter();
            Watch::new(&found).expect("sockets")
        };
        let two = format!("ethtool -L {one} tx 1; ethtool -L {one} tx 2");
        shell(format!("for _ in $(seq {}); do {two}; done; ethtool -L {one} rx 2", NOTICES / 2));
        let mut told = 0;
        loop {
            let next = async { tokio::time::timeout(Duration::from_secs(5), watch.next()).await };
            match runtime.block_on(next).expect("how many queues there are").expect("the kernel tells") {
                Happening::Queues(2) => break,
                Happening::Queues(1) => told += 1,
                Happening::CarrierLost | Happening::Back => {}
                other => panic!("{other:?}"),
            }
        }
        if told >= NOTICES {
            println!("SKIP af_xdp::overflow: the sockets of this system have room for {NOTICES} notices");
        }
    });
}

#[test]
fn what_happens_to_an_interface_is_told_and_nothing_of_others() {
    let Some(lab) = Lab::new("watch", 2) else { return };
    lab.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let one = runtime.block_on(interface::find(Some(lab::ONE))).expect("it is up");
        // Before anybody watches, but after it was found.
        lab::ip(&["link", "set", lab::ONE, "mtu", "1400"]);
        let mut watch = {
            let _entered = runtime.enter();
            Watch::new(&one).expect("sockets")
        };
        let mut next = || {
            let next = async { tokio::time::timeout(Duration::from_secs(5), watch.next()).await };
            runtime.block_on(next).expect("in time").expect("the kernel tells")
        };
        assert_eq!(next(), Happening::Mtu(1_400));
        assert_eq!(next(), Happening::Queues(2), "asked for, since nobody was told of a change before");
        lab::ip(&["link", "set", lab::OTHER, "mtu", "1300"]);
        lab::ip(&["link", "set", lab::OTHER, "down"]);
        assert_eq!(next(), Happening::CarrierLost);
        lab::ip(&["link", "set", lab::OTHER, "up"]);
        assert_eq!(next(), Happening::Back);
        lab::ip(&["link", "set", lab::ONE, "down"]);
        assert_eq!(next(), Happening::Down);
        lab::ip(&["link", "set", lab::ONE, "address", "02:00:5e:00:53:07"]);
        assert_eq!(next(), Happening::Mac(MacAddr([2, 0, 0x5e, 0, 0x53, 7])));
        lab::ip(&["link", "set", lab::ONE, "up"]);
        assert_eq!(next(), Happening::Back);
        for (interface, queues) in [(lab::OTHER, "1"), (lab::ONE, "1"), (lab::ONE, "2")] {
            let set = Command::new("ethtool").args(["-L", interface, "rx", queues]).status();
            assert!(set.expect("running ethtool").success());
        }
        // A veth is without a carrier while its queues change.
        let mut queues = Vec::new();
        while queues.len() < 2 {
            match next() {
                Happening::Queues(count) => queues.push(count),
                Happening::CarrierLost | Happening::Back => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(queues, [1, 2]);
        lab::ip(&["link", "del", lab::ONE]);
        loop {
            match next() {
                Happening::Removed => break,
                Happening::CarrierLost | Happening::Back | Happening::Down => {}
                other => panic!("{other:?}"),
            }
        }
    });
}
