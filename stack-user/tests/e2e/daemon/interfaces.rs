//! A daemon on two interfaces, each with a LAN of its own.

use super::*;

/// Where it is on the second one, and another address that it is told to have there.
const OURS_THERE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 50);
const SECOND_THERE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 51);

/// The peer's own address there.
const PEER_THERE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 3);

#[test]
fn it_is_on_several_interfaces_as_on_one() {
    let test = "it_is_on_several_interfaces_as_on_one";
    let Some(lab) = TestLab::with_servers(test, &["setpriv", "curl"]) else { return };
    connect_twice(&lab);
    let state = lab.host_state();
    echo_on_host(&lab, 8080);
    let there =
        inside(&lab, Host::Peer, || TcpListener::bind((PEER_THERE, 7000)).expect("the peer's own address"));
    let place = Place::new();
    place.configure(&[(80, 8080)], 1.0);
    let network = format!("[network]\ninterface = 'xs0'\naddresses = ['{OURS}/24']\n");
    let second = format!("[[network]]\ninterface = 'xs1'\naddresses = ['{OURS_THERE}/24']\n");
    place.replace(&network, &(network.replace("[network]", "[[network]]") + &second));
    place.replace("[[proxy]]\n", "[limits]\nbacklog = 7\n[[proxy]]\n");
    let of_one = format!(
        "[[forward]]\nfrom = '{OURS_THERE}:81'\nto = '8080'\n\
         [[forward]]\nfrom = 'kernel:127.0.0.1:9001'\nto = 'ours:{PEER_THERE}:7000'\n"
    );
    place.replace("[[proxy]]\n", &(of_one + "[[proxy]]\n"));
    let mut daemon = place.start(&lab);
    assert!(place.log().contains(&format!("xstack: {OURS} on xs0, {OURS_THERE} on xs1, 4 forwards")));
    assert_eq!(place.addresses(&lab), [OURS.to_string(), OURS_THERE.to_string()]);

    // What listens on all addresses is on both, what listens on one is there only.
    let mut kept = peer(&lab, 80, 0);
    echoes(&mut kept, b"here");
    let mut kept_there = try_peer_at(&lab, OURS_THERE, 80, 0).unwrap();
    echoes(&mut kept_there, b"there");
    echoes(&mut try_peer_at(&lab, OURS_THERE, 81, 0).unwrap(), b"there only");
    assert_eq!(try_peer(&lab, 81, 0).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let (_, lines, error) = place.client(&lab, FRIEND, &["connections", "-H"]);
    for ours in [OURS, OURS_THERE] {
        assert!(lines.contains(&format!("{ours}:80")), "{lines}{error}");
    }
    let (_, lines, _) = place.client(&lab, FRIEND, &["connections", "-l", "-H"]);
    // How many may wait at each, as ss has it: on two interfaces twice as many.
    let backlogs: Vec<_> = lines.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(backlogs, ["14", "7"], "{lines}");

    // Who is on a LAN is reached from there, and all others through the one that has a router.
    let _to_there = inside(&lab, Host::Host, || TcpStream::connect((Ipv4Addr::LOCALHOST, 9001)).unwrap());
    let (_, from) = there.accept().unwrap();
    assert_eq!(from.ip(), OURS_THERE);
    let (_, status, _) = place.client(&lab, FRIEND, &["status"]);
    let told =
        status.lines().any(|line| line.starts_with("neighbour      10.78.0.3  ") && line.contains(':'));
    assert!(told, "{status}");
    let expected = String::from_utf8(lab.real_curl("http://example.com/")).unwrap();
    let (code, page, error) = place.client(&lab, FRIEND, &["curl", "-sS", "--daemon", "http://example.com/"]);
    assert_eq!((code, page), (Some(0), expected), "{error}");

    // Addresses come and go on their own interface.
    place.replace(&format!("'{OURS_THERE}/24'"), &format!("'{OURS_THERE}/24', '{SECOND_THERE}'"));
    daemon.signal(Signal::SIGHUP);
    wait_for("the address", || place.log().contains(&format!("{SECOND_THERE} claimed")));
    wait_for("the reload", || place.log().contains("reloaded: 4 listeners kept"));
    echoes(&mut try_peer_at(&lab, SECOND_THERE, 80, 0).unwrap(), b"a new address");
    place.replace(&format!(", '{SECOND_THERE}'"), "");
    daemon.signal(Signal::SIGHUP);
    wait_for("the address to be free", || {
        place.addresses(&lab) == [OURS.to_string(), OURS_THERE.to_string()]
    });
    echoes(&mut kept, b"still here");
    echoes(&mut kept_there, b"still there");

    daemon.signal(Signal::SIGTERM);
    ends(&mut kept, "when the daemon ended");
    ends(&mut kept_there, "when the daemon ended");
    wait_for("the daemon to end", || daemon.has_ended());
    assert_eq!(daemon.finish().status.code(), Some(0), "{}", place.log());
    place.nothing_is_left(&lab, &state);
    assert!(!lab.text(Host::Host, &["ip", "link", "show", "xs1"]).contains("prog/xdp"));
}

#[test]
fn if_one_of_two_networks_cannot_be_had_nothing_is_left_of_the_other() {
    let test = "if_one_of_two_networks_cannot_be_had_nothing_is_left_of_the_other";
    let Some(lab) = TestLab::with_servers(test, &["setpriv"]) else { return };
    connect_twice(&lab);
    let state = lab.host_state();
    let place = Place::new();
    place.configure(&[(80, 8080)], 1.0);
    place.replace("[network]\n", "[[network]]\n");
    let taken = format!("[[network]]\ninterface = 'xs1'\naddresses = ['{PEER_THERE}/24']\n");
    place.replace("[daemon]\n", &(taken + "[daemon]\n"));
    let mut command = lab.on(Host::Host, XSTACK);
    let outcome = run_for(command.arg("daemon").arg(&place.config), PATIENCE).expect_code(45);
    assert!(outcome.stderr.contains(&format!("{PEER_THERE} is in use by")), "{}", outcome.stderr);
    place.nothing_is_left(&lab, &state);
    assert!(!lab.text(Host::Host, &["ip", "link", "show", "xs1"]).contains("prog/xdp"));
}

/// Gives the host and the peer a second link with each other. It goes with the lab.
fn connect_twice(lab: &TestLab) {
    let peer = lab.namespace(Host::Peer);
    let ip = |host: Host, words: &str| {
        let words: Vec<_> = std::iter::once("ip").chain(words.split(' ')).collect();
        lab.output(host, &words);
    };
    let queues = "numrxqueues 1 numtxqueues 1";
    ip(Host::Host, &format!("link add xs1 {queues} type veth peer name peer1 {queues} netns {peer}"));
    for (host, device, address) in
        [(Host::Host, "xs1", "10.78.0.2/24"), (Host::Peer, "peer1", "10.78.0.3/24")]
    {
        lab.output(host, &["ethtool", "-K", device, "tx", "off"]);
        ip(host, &format!("addr add {address} dev {device}"));
        ip(host, &format!("link set {device} up"));
    }
}
