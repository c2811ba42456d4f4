//! Busy polling: the driver is asked, its interrupts are held back, and let in again however xstack ends.

use std::{fs, time::Duration};

use stack_user::device::interface::netdev::{Direction, Netdev};

use crate::{
    guest::{Guest, NIC, OURS, content, fetch, sized},
    process::assert_same_bytes,
};

/// `defer-hard-irqs` and `gro-flush-timeout`.
type Settings = (u32, Duration);

const FREE: Settings = (0, Duration::ZERO);
const HELD: Settings = (2, Duration::from_micros(200));

/// Of each NAPI that serves a queue's receiving, where the kernel and the driver tell, else of the interface.
fn settings() -> Vec<Settings> {
    let index = nix::net::if_::if_nametoindex(NIC).unwrap();
    let each = Netdev::find().unwrap().and_then(|netdev| {
        let queues = netdev.queues(index).unwrap()?;
        let receiving = queues.into_iter().filter(|queue| queue.direction == Direction::Rx);
        receiving
            .map(|queue| {
                let napi = netdev.napi(queue.napi?).unwrap()?;
                Some((napi.defer_hard_irqs?, napi.gro_flush_timeout?))
            })
            .collect()
    });
    each.unwrap_or_else(|| {
        let read = |name| -> u64 {
            fs::read_to_string(format!("/sys/class/net/{NIC}/{name}")).unwrap().trim().parse().unwrap()
        };
        vec![(read("napi_defer_hard_irqs") as u32, Duration::from_nanos(read("gro_flush_timeout")))]
    })
}

fn all_are(wanted: Settings) -> bool {
    settings().iter().all(|&settings| settings == wanted)
}

#[test]
fn bytes_arrive_whole_while_the_driver_is_polled() {
    let Some(guest) = Guest::long_on_igb("busy_download") else { return };
    let server = guest.serve();
    for length in [1, 1460, 100_000, sized(3_000_000, 20_000_000)] {
        let outcome =
            guest.run_xstack(&["--busy-poll", "curl", "-v", "--silent", "--show-error", &server.url(length)]);
        assert!(outcome.stderr.contains("is polled by us"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("holds its interrupts back"), "{}", outcome.stderr);
        assert_same_bytes(&outcome.body(), &content(length), &format!("{length} bytes"));
        assert!(all_are(FREE), "{:?} after it has ended", settings());
    }
}

#[test]
fn what_we_send_arrives_whole_while_the_driver_is_polled() {
    let Some(guest) = Guest::long_on_igb("busy_upload") else { return };
    let directory = tempfile::tempdir().unwrap();
    let length = sized(3_000_000, 20_000_000);
    fs::write(directory.path().join("file"), content(length)).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let serving = guest.start_xstack(&[
        "--busy-poll=500",
        "serve",
        "--listen",
        "8080",
        &directory.path().to_string_lossy(),
    ]);
    assert!(all_are(HELD), "{:?} while it polls", settings());
    let server = format!("{OURS}:8080").parse().unwrap();
    let body = guest.on_peer(|| fetch(server, "/file"));
    assert_same_bytes(&body, &content(length), "the file");
    // It has slept since, and wakes up.
    std::thread::sleep(Duration::from_millis(500));
    let body = guest.on_peer(|| fetch(server, "/file"));
    assert_same_bytes(&body, &content(length), "the file, again");
    assert!(all_are(HELD), "{:?} while it polls", settings());
    serving.stop(&guest);
    guest.wait_until("interrupts are let in again", || all_are(FREE));
}

#[test]
fn a_kill_lets_the_interrupts_in_again() {
    let Some(guest) = Guest::long_on_igb("busy_killed") else { return };
    let server = guest.serve();
    let directory = tempfile::tempdir().unwrap();
    let serving = guest.start_xstack(&[
        "--busy-poll",
        "serve",
        "--listen",
        "8080",
        &directory.path().to_string_lossy(),
    ]);
    assert!(all_are(HELD), "{:?} while it polls", settings());
    serving.kill();
    guest.wait_until("interrupts are let in again", || all_are(FREE));
    // And nothing of it is in the way.
    let body =
        guest.run_xstack(&["--busy-poll", "curl", "--silent", "--show-error", &server.url(100_000)]).body();
    assert_same_bytes(&body, &content(100_000), "after the kill");
}
