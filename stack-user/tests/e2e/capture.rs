//! The capture that `--pcap` writes is right in the eyes of tshark.

use crate::support::{Host, TestLab};

#[test]
fn tshark_finds_nothing_wrong_in_a_capture() {
    let Some(lab) = TestLab::with_servers("tshark_finds_nothing_wrong_in_a_capture", &["tshark"]) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("capture.pcapng");
    let file = file.to_str().unwrap();
    lab.xstack(&["--pcap", file, "curl", "-s", "-o", "/dev/null", "http://example.com/bytes/500000"])
        .expect_code(0);

    let matching = |filter: &str| {
        let checks = ["ip", "tcp", "udp"].map(|protocol| format!("-o{protocol}.check_checksum:TRUE"));
        let mut words = vec!["tshark", "-n", "-r", file, "-Y", filter];
        words.extend(checks.iter().map(String::as_str));
        lab.text(Host::Host, &words).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let wrong = "_ws.malformed || ip.checksum.status == \"Bad\" || tcp.checksum.status == \"Bad\" \
                 || udp.checksum.status == \"Bad\"";
    assert_eq!(matching(wrong), Vec::<String>::new());
    // That tshark did look, and at both directions of everything.
    assert!(matching("tcp.checksum.status == \"Good\" && tcp.srcport == 80").len() > 100);
    assert!(matching("tcp.checksum.status == \"Good\" && tcp.dstport == 80").len() > 10);
    for filter in ["arp.opcode == 1", "arp.opcode == 2", "dns.flags.response == 1"] {
        assert!(!matching(filter).is_empty(), "no frame matches {filter}");
    }
}
