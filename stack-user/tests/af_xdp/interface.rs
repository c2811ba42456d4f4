//! What is found out about an interface, against one of which we know it all.

use std::{net::IpAddr, time::Duration};

use stack_user::device::interface::{self, Interface, InterfaceError, Network};

use crate::lab::{self, Lab};

fn wait<T>(question: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(question)
}

pub(crate) fn find(name: Option<&str>) -> Result<Interface, InterfaceError> {
    wait(interface::find(name))
}

fn ip_address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn all_facts_of_a_veth_are_found() {
    let Some(lab) = Lab::new("facts", 2) else { return };
    lab.inside(|| {
        lab::ip(&["link", "set", lab::ONE, "address", "02:00:5e:00:53:01", "mtu", "1400"]);
        lab::ip(&["address", "add", "192.0.2.10/24", "dev", lab::ONE]);
        lab::ip(&["address", "add", "198.51.100.1", "peer", "198.51.100.2/32", "dev", lab::ONE]);
        lab::ip(&["route", "add", "default", "via", "192.0.2.254", "dev", lab::ONE, "metric", "200"]);
        lab::ip(&["route", "add", "default", "via", "192.0.2.1", "dev", lab::ONE, "metric", "100"]);
        lab::ip(&["route", "add", "default", "via", "192.0.2.9", "dev", lab::ONE, "table", "77"]);

        let found = find(None).expect("the default route's");
        assert_eq!(found.name, lab::ONE);
        assert_eq!(found, find(Some(lab::ONE)).expect("by name"));
        assert_eq!(found.mac.to_string(), "02:00:5e:00:53:01");
        assert_eq!((found.mtu, found.rx_queues, found.driver.as_deref()), (1400, 2, Some("veth")));
        assert!(found.has_carrier && found.may_have_partial_checksums());
        assert_eq!(found.peer.as_ref().and_then(|peer| peer.name.as_deref()), Some(lab::OTHER));
        assert!(found.strips_vlan_tags(), "a veth does by default");
        let network = |address, prefix_len| Network { address: ip_address(address), prefix_len };
        assert_eq!(found.networks, [network("192.0.2.10", 24), network("198.51.100.1", 32)]);
        assert_eq!(found.gateways, [ip_address("192.0.2.1"), ip_address("192.0.2.254")]);
        assert_eq!(found.ipv4_network().expect("an address"), ([192, 0, 2, 10].into(), 24));
        assert_eq!((found.queues(None), found.queues(Some(1))), (vec![0, 1], vec![1]));

        let owner = |address| wait(interface::owner_of(ip_address(address))).expect("an answer");
        assert_eq!(owner("198.51.100.1").as_deref(), Some(lab::ONE));
        assert_eq!(owner("198.51.100.2"), None, "the peer's address is not ours");
    });
}

#[test]
fn an_interface_that_can_t_be_used_says_why() {
    let Some(lab) = Lab::new("unusable", 1) else { return };
    lab.inside(|| {
        let error = find(None).expect_err("no default route");
        assert!(
            matches!(&error, InterfaceError::NoDefault { known } if known.contains(&lab::ONE.to_owned())),
            "{error}"
        );
        let one = find(Some(lab::ONE)).expect("it is up");
        let error = one.ipv4_network().expect_err("no address").to_string();
        assert!(error.contains("--address"), "{error}");

        let waited = wait(one.wait_for_carrier(Duration::from_secs(1), || panic!("it is there")));
        assert!(!waited.expect("a carrier"));
        lab::ip(&["link", "set", lab::OTHER, "down"]);
        let error = wait(one.wait_for_carrier(Duration::from_millis(100), || ())).expect_err("no carrier");
        assert!(matches!(error, InterfaceError::NoCarrier { .. }), "{error}");
        // It comes back while we wait.
        let (told, asked) = std::sync::mpsc::channel();
        let waited = std::thread::scope(|scope| {
            // Threads that are started here are in the namespace, too.
            scope.spawn(move || {
                asked.recv().expect("it waits");
                lab::ip(&["link", "set", lab::OTHER, "up"]);
            });
            wait(one.wait_for_carrier(Duration::from_secs(5), move || told.send(()).expect("a reader")))
        });
        assert!(waited.expect("a carrier"), "it had to wait");
        lab::ip(&["link", "set", lab::OTHER, "down"]);
        let error = find(Some(lab::OTHER)).expect_err("it is down").to_string();
        assert!(error.contains("ip link set xs-dev1 up"), "{error}");
    });
}
