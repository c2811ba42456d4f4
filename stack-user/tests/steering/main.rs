//! One table of frames, decided on the host and by the program in the kernel, which must agree.

mod frames;
mod kernel;
mod table;

use kernel::{Kernel, SHORTEST};
use proptest::prelude::*;
use stack_common::steer::{SliceCursor, Verdict, decide};
use table::{Case, Claims, cases, claims};

fn on_the_host(frame: &[u8], claims: &Claims) -> Verdict {
    decide(&mut SliceCursor::new(frame), claims)
}

/// Where to cut a frame: after every byte, but of what follows the headers of a long one only here and there.
fn cuts(frame: &[u8]) -> impl Iterator<Item = usize> + use<> {
    const HEADERS: usize = 200;
    let len = frame.len();
    (0..len.min(HEADERS)).chain((HEADERS..len).step_by(97)).chain(len.checked_sub(1))
}

#[test]
fn the_host_decides_as_the_table_says() {
    let claims = claims();
    let cases = cases();
    assert!(cases.len() > 1000, "the table has shrunk to {}", cases.len());
    for Case { name, frame, verdict } in &cases {
        assert_eq!(on_the_host(frame, &claims), *verdict, "{name}: {frame:02x?}");
    }
    for verdict in Verdict::ALL {
        let is_reached =
            verdict == Verdict::PassTruncated || cases.iter().any(|case| case.verdict == verdict);
        assert!(is_reached, "no frame of the table gets {verdict:?}");
    }
}

/// What is missing can make a frame truncated, but it can't make it anything else.
#[test]
fn a_truncated_frame_gets_no_other_verdict() {
    let claims = claims();
    for Case { name, frame, verdict } in cases() {
        for cut in cuts(&frame) {
            let decided = on_the_host(&frame[..cut], &claims);
            assert!(
                decided == verdict || decided == Verdict::PassTruncated,
                "{name}, {cut} bytes: {decided:?}"
            );
        }
    }
}

#[test]
fn the_kernel_decides_as_the_host() {
    let claims = claims();
    for object in kernel::objects() {
        let mut kernel = match Kernel::load(&object, &claims) {
            Ok(kernel) => kernel,
            Err(reason) => {
                eprintln!("SKIP steering::the_kernel_decides_as_the_host: {reason}");
                return;
            }
        };
        let mut runs = 0;
        let mut compare = |name: &str, frame: &[u8]| {
            if frame.len() >= SHORTEST {
                let here = on_the_host(frame, &claims);
                let there = kernel.decide(frame, here);
                assert_eq!(there, here, "{}: {name}: {frame:02x?}", object.display());
                runs += 1;
            }
        };
        for Case { name, frame, .. } in cases() {
            compare(&name, &frame);
            for cut in cuts(&frame) {
                compare(&format!("{name}, {cut} bytes"), &frame[..cut]);
            }
        }
        // Each byte of the headers changed, in the frames without options: what nobody thought of.
        for Case { name, frame, .. } in cases().iter().filter(|case| case.name.contains("untagged, 0 bytes"))
        {
            for at in 12..frame.len().min(80) {
                for change in [0x01, 0x80, 0xff] {
                    let mut frame = frame.clone();
                    frame[at] ^= change;
                    compare(&format!("{name}, byte {at} ^ {change:#x}"), &frame);
                }
            }
        }
        kernel.check_counters();
        assert!(runs > 100_000, "only {runs} frames were compared");
    }
}

proptest! {
    /// Any bytes get a verdict, and what is there can be cut anywhere.
    #[test]
    fn any_bytes_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_any(&bytes)?;
    }

    /// So do bytes that look like a frame at first.
    #[test]
    fn almost_any_frame_gets_a_verdict(
        case in 0..1000_usize,
        changes in prop::collection::vec((12..90_usize, any::<u8>()), 1..4),
    ) {
        let mut frame = cases().swap_remove(case).frame;
        for (at, byte) in changes {
            if let Some(there) = frame.get_mut(at) {
                *there = byte;
            }
        }
        check_any(&frame)?;
    }
}

fn check_any(frame: &[u8]) -> Result<(), TestCaseError> {
    let claims = claims();
    let verdict = on_the_host(frame, &claims);
    for cut in cuts(frame) {
        let decided = on_the_host(&frame[..cut], &claims);
        prop_assert!(decided == verdict || decided == Verdict::PassTruncated, "{cut} bytes: {decided:?}");
    }
    Ok(())
}
