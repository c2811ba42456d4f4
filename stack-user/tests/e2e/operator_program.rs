//! The object that an operator attaches with xdp-loader, and xstack on top of it.

use std::path::Path;
use std::time::Duration;

use crate::support::{Host, TestLab, XSTACK, run_for};

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/xstack.bpf.o");

/// A namespace entered by `ip` has a /sys of its own, for as long as this script runs.
const SCRIPT: &str = r#"
set -eu
mount -t bpf bpf /sys/fs/bpf
mkdir /sys/fs/bpf/xstack
xdp-loader load -m native -p /sys/fs/bpf/xstack xs0 "$OBJECT" >&2
status=0
"$XSTACK" --program pinned:/sys/fs/bpf/xstack curl --silent --show-error http://example.com/ || status=$?
# It is the operator's program: xstack must have left it there.
ip link show xs0 | grep -q prog/xdp || { echo "the program is gone" >&2; status=99; }
# Without any capability by then, it has taken its claim out of the operator's map.
left=$(bpftool -j map dump pinned /sys/fs/bpf/xstack/CLAIMS)
[ "$left" = "[]" ] || { echo "there is still $left" >&2; status=98; }
xdp-loader unload xs0 --all >&2
exit $status
"#;

#[test]
fn xstack_works_through_a_program_that_xdp_loader_pinned() {
    let test = "xstack_works_through_a_program_that_xdp_loader_pinned";
    let Some(lab) = TestLab::with_servers(test, &["xdp-loader", "bpftool", "curl"]) else { return };
    assert!(Path::new(OBJECT).exists(), "{OBJECT} is missing");
    let expected = lab.real_curl("http://example.com/");
    let mut command = lab.on(Host::Host, "sh");
    command.args(["-c", SCRIPT]).env("OBJECT", OBJECT).env("XSTACK", XSTACK);
    let outcome = run_for(&mut command, Duration::from_secs(30));
    assert_eq!(outcome.body(), expected);
    assert!(!lab.has_program());
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() {
    let test = "a_program_of_somebody_else_is_named_and_left_alone";
    let Some(lab) = TestLab::with_servers(test, &["xdp-loader"]) else { return };
    let load =
        ["sh", "-c", "mount -t bpf bpf /sys/fs/bpf; exec xdp-loader load -m native xs0 \"$0\"", OBJECT];
    lab.output(Host::Host, &load);
    let state = lab.host_state();
    let outcome = lab.xstack(&["curl", "http://example.com/"]).expect_code(45);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("xs0") && outcome.stderr.contains("XDP"), "{}", outcome.stderr);
    assert_eq!(lab.host_state(), state, "the host is not as it was");
    assert!(lab.has_program());
}
