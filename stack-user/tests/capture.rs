//! A capture file is read by tshark: each frame whole, with its direction and its time.

use std::{collections::VecDeque, process::Command};

use stack_user::{
    device::{
        Device, Umem,
        capture::{Capture, Recorder},
        memory,
    },
    frame::FramePool,
    time::{Duration, Instant},
    wire::checksum::checksum,
};

/// An ICMP echo request from `last` octet to another in 192.0.2.0/24, of odd length.
fn echo_request(last: u8) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0x5e, 0, 0x53, 1, 0x02, 0, 0x5e, 0, 0x53, 2, 0x08, 0];
    let mut ip = [0x45, 0, 0, 33, 0, 1, 0x40, 0, 64, 1, 0, 0, 192, 0, 2, last, 192, 0, 2, 99];
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let mut icmp = [8, 0, 0, 0, 0, 1, 0, last, b'p', b'r', b'o', b'b', b'e'];
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&icmp);
    frame
}

#[test]
fn tshark_reads_what_was_captured() {
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("SKIP capture: tshark is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("xs-capture.pcapng");
    let (device, far) = memory::tap(memory::Options::default());
    let mut umem = Umem::on_heap(8).expect("memory");
    let epoch = Duration::from_secs(1_700_000_000);
    let recorder = Recorder::create(&path, "xs-capture", epoch).expect("a new file");
    let mut capture = Capture::new(Box::new(device), &recorder);

    let bytes = echo_request(1);
    let mut frame = umem.allocate().expect("a chunk").into_tx();
    umem.tx_buffer(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
    frame.set_len(bytes.len());
    capture.tx_burst(Instant::from_nanos(123_456_789), &mut umem, &mut VecDeque::from([frame]));
    assert!(far.send(&echo_request(2)));
    capture.rx_burst(Instant::from_nanos(987_654_321), &mut umem, &mut Vec::new());
    drop((capture, recorder));

    let fields =
        ["frame.time_epoch", "frame.packet_flags_direction", "frame.len", "ip.src", "ip.checksum.status"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path).args(["-o", "ip.check_checksum:TRUE", "-T", "fields"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output =
        tshark.args(["-e", "icmp.checksum.status", "-e", "_ws.malformed"]).output().expect("running tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 2, "{text}");
    assert_eq!(rows[0][0], "1700000000.123456789");
    assert_eq!(rows[1][0], "1700000000.987654321");
    let numbers = |row: &[&str]| (parse(row[1]), row[2].to_owned(), row[3].to_owned());
    assert_eq!(numbers(&rows[0]), (2, "47".to_owned(), "192.0.2.1".to_owned()));
    assert_eq!(numbers(&rows[1]), (1, "47".to_owned(), "192.0.2.2".to_owned()));
    for row in &rows {
        // 1 is "good"; newer versions print the word.
        assert!(matches!(row[4], "1" | "Good") && matches!(row[5], "1" | "Good"), "{text}");
        assert!(row[6].is_empty(), "{text}");
    }
}

/// A number as tshark prints it, decimal or hexadecimal.
fn parse(text: &str) -> u32 {
    text.strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16))
        .expect("a number")
}
