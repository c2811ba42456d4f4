//! Frames that are longer than a page, in several chunks; and chunks on huge pages.

use std::time::{Duration, Instant as Clock};

use stack_user::{
    device::{
        Device,
        xdp::{self, Copying, HugePages as Wish, OpenError, Options},
    },
    frame::FramePool,
    time::Instant,
};

use super::{End, exchange, huge_pages::HugePages, lab, lab::Lab};

const JUMBO: Options = Options {
    copying: Copying::Auto,
    ring_size: xdp::RING_SIZE,
    chunks_per_queue: xdp::CHUNKS_PER_QUEUE,
    mtu: 9000,
    huge_pages: Wish::Auto,
};

fn jumbo_lab(name: &str, mtu: u32) -> Option<Lab> {
    lab_of(name, 1, mtu)
}

fn lab_of(name: &str, queues: u32, mtu: u32) -> Option<Lab> {
    Lab::new(name, queues).inspect(|lab| {
        lab.inside(|| {
            for end in [lab::ONE, lab::OTHER] {
                lab::ip(&["link", "set", end, "mtu", &mtu.to_string()]);
            }
        });
    })
}

#[test]
fn long_frames_lie_in_several_chunks() {
    let Some(lab) = jumbo_lab("several", 9000) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0], &JUMBO);
        let mut b = End::open(lab::OTHER, &[0], &JUMBO);
        assert!(a.device.describe().contains("multi-buffer"), "{}", a.device.describe());
        exchange(&mut a, &mut b, 20_000, 64, true);
    });
}

#[test]
fn chunks_lie_on_huge_pages_where_enough_are_reserved() {
    let Some(lab) = lab_of("huge", 2, 9000) else { return };
    // A UMEM takes eight; other tests of this process take what they find, too, some of them for six at once.
    let Some(_pages) = HugePages::reserve("af_xdp::huge", 192) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0], &JUMBO);
        let mut b = End::open(lab::OTHER, &[0], &JUMBO);
        for end in [&a, &b] {
            assert!(end.device.describe().contains("multi-buffer, huge pages"), "{}", end.device.describe());
        }
        exchange(&mut a, &mut b, 10_000, 64, true);
        let on = |wish| {
            let opened = xdp::open(lab::OTHER, &[1], &Options { huge_pages: wish, ..JUMBO });
            opened.map(|(_, _, bound)| bound.huge_pages)
        };
        assert!(!on(Wish::Never).expect("opens"), "they are left to others");
        assert!(on(Wish::Always).expect("opens"), "there are enough");
    });
}

#[test]
fn who_insists_on_huge_pages_is_told_how_to_have_them() {
    let Some(lab) = Lab::new("no-pages", 1) else { return };
    lab.inside(|| {
        // More than any machine that runs tests has.
        let options =
            Options { huge_pages: Wish::Always, chunks_per_queue: xdp::CHUNKS_MAX, ..Options::default() };
        let opened = xdp::open(lab::ONE, &[0], &options);
        let error = opened.map(|_| ()).expect_err("there are not that many");
        assert!(matches!(error, OpenError::NoHugePages { .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains("256 MB") && told.contains("--huge-pages auto"), "{told}");
    });
}

#[test]
fn what_fits_in_a_page_asks_for_nothing() {
    let Some(lab) = jumbo_lab("page", 3498) else { return };
    lab.inside(|| {
        let options = Options { mtu: 3498, ..JUMBO };
        let mut a = End::open(lab::ONE, &[0], &options);
        let mut b = End::open(lab::OTHER, &[0], &options);
        assert!(!a.device.describe().contains("multi-buffer"), "{}", a.device.describe());
        exchange(&mut a, &mut b, 20_000, 64, true);
    });
}

#[test]
fn a_ring_that_is_nearly_full_takes_all_of_a_frame_or_nothing() {
    let Some(lab) = jumbo_lab("nearly", 9000) else { return };
    lab.inside(|| {
        // Sixteen descriptors: five frames of three chunks, and one that does nobody any good.
        let options = Options { ring_size: 16, chunks_per_queue: 256, ..JUMBO };
        let mut a = End::open(lab::ONE, &[0], &options);
        let mut b = End::open(lab::OTHER, &[0], &options);
        let start = Clock::now();
        while b.got < 5_000 {
            assert!(start.elapsed() < Duration::from_secs(60), "stuck: {} of {}", b.got, a.sent);
            let now = Instant::from_nanos(start.elapsed().as_nanos() as u64);
            let room = a.device.tx_room();
            let may = if a.queue.is_empty() { (b.got + 4 - a.sent).min(4) } else { 0 };
            a.send(now, may as usize);
            assert!(a.device.tx_room() <= room);
            b.receive(now, true);
            a.reap();
        }
        a.queue.drain(..).for_each(|frame| a.umem.release_tx(frame));
        a.check_conserved();
        b.check_conserved();
        assert_eq!((a.counter("tx_refused"), a.counter("tx_invalid_descs")), (0, 0));
    });
}
