//! From a NIC's queues to shards: each queue is a device with memory of its own, and each device has a stack.

use std::{sync::Arc, time::SystemTime};

use super::{Builder, LongFrames, StartError, only_first_queue};
use crate::{
    device::{
        Device, Umem, busy_poll,
        capture::{Capture, Recorder},
        fault::{Fault, FaultSpec},
        interface::Interface,
        kernel,
        xdp::{self, Bound, Copying, Mode, XdpDevice, program::Program},
    },
    net::rss::Rss,
    rng::Rng,
    runtime::{Clock, Life},
    stack, tcp,
    telemetry::STORY,
    time::{Duration, Instant},
};

/// A queue that is bound.
pub(super) struct Queue {
    number: u32,
    device: XdpDevice,
    umem: Umem,
    bound: Bound,
}

/// What runs on a queue.
type ShardParts = (stack::Stack<Umem>, Box<dyn Device>);

/// How long an ACK waits for more of its burst where the driver polls. Less, and at 10 Gbit/s hardly a segment comes meanwhile; more, and
/// the round trip of a LAN is mostly this.
const ACK_HOLD: Duration = Duration::from_micros(20);

/// The same for what will be answered. Less, and where many ask at once each gets an ACK before its answer; more, and a peer that waits for
/// each ACK (Nagle's algorithm) is kept waiting.
const ANSWER_HOLD: Duration = Duration::from_micros(200);

impl Builder {
    /// Opens a device on each queue, with memory of its own, and tells the program of its socket. Nothing is received
    /// before an address is claimed, and none is before this has bound whatever queue its frames may arrive on.
    pub(super) fn bind(
        &self,
        interface: &Interface,
        program: &mut Program,
    ) -> Result<(Vec<Queue>, LongFrames), StartError> {
        let release = kernel::release();
        if is_fatal(interface.driver.as_deref(), self.mode, &release) {
            return Err(StartError::KernelPanics { interface: interface.name.clone(), release });
        }
        let mut numbers = interface.queues(self.queue);
        let now = interface.queues(None).len() as u32;
        if self.queue.is_none() && now > interface.rx_queues {
            // virtio takes them away again with the program, while sockets are bound to them if we were killed.
            let (interface, before) = (interface.name.clone(), interface.rx_queues);
            return Err(StartError::AddedQueues { interface, before, now });
        }
        let options = xdp::Options {
            copying: self.copying(interface, program),
            ring_size: self.ring_size.get(),
            chunks_per_queue: xdp::Options::chunks_for_each_of(numbers.len()),
            mtu: interface.mtu,
            huge_pages: self.huge_pages,
        };
        let mut queues: Vec<Queue> = Vec::new();
        // Were there more queues when all are bound than before, those are bound too.
        while queues.len() < numbers.len() {
            for &number in &numbers[queues.len()..] {
                let opened = xdp::open(&interface.name, &[number], &options);
                let (device, umem, bound) = opened.map_err(|source| match self.queue {
                    None if numbers.len() > 1 => {
                        StartError::Unbound { interface: interface.name.clone(), queue: number, source }
                    }
                    _ => source.into(),
                })?;
                for (queue, socket) in device.sockets() {
                    program.bind_socket(queue, socket)?;
                }
                queues.push(Queue { number, device, umem, bound });
            }
            numbers = interface.queues(self.queue);
        }
        let all = queues.iter().map(|queue| &queue.bound);
        let (zero_copy, copy): (Vec<_>, Vec<_>) = all.clone().partition(|bound| bound.zero_copy);
        for bound in [zero_copy, copy].into_iter().filter(|bound| !bound.is_empty()) {
            tracing::info!(target: STORY, "AF_XDP sockets bound to {}: {}", interface.name, Bound::all(bound));
        }
        if let Some(queue) = self.queue {
            check_spread(interface, queue)?;
        }
        let long_frames = LongFrames::new(Bound::all(all));
        long_frames.tell(interface, options.copying);
        Ok((queues, long_frames))
    }

    /// Has the sockets of the queues poll the driver, if that was asked for.
    pub(super) fn poll_busily(&self, interface: &Interface, queues: &[Queue]) -> Option<busy_poll::Held> {
        let time = self.busy_poll?;
        let zero_copy = queues.iter().any(|queue| queue.bound.zero_copy);
        let sockets = queues.iter().flat_map(|queue| queue.device.sockets());
        busy_poll::start(interface, sockets, zero_copy, time)
    }

    /// Whether frames may go without a copy. A fill ring that is smaller than the card's own never has what its driver asks
    /// for, and drivers are not used to that: igb then loses track of whose memory is whose.
    fn copying(&self, interface: &Interface, program: &Program) -> Copying {
        let wish = self.mode.copying(program.is_generic());
        let card = interface.rx_ring().unwrap_or(0);
        if wish != Copying::Auto || self.ring_size.get() >= card {
            return wish;
        }
        tracing::info!(
            target: STORY,
            "frames are copied, since {}'s own rings have {card} descriptors, and ours {}", interface.name, self.ring_size
        );
        Copying::Copy
    }

    /// What connections are opened with by a driver that polls, or by one that sleeps: only the first comes back in time for an ACK
    /// that is held. Whoever has chosen how long knows better than we do, and has that.
    fn tcp_of_driver(&self) -> tcp::Config {
        let mut tcp = self.tcp.clone();
        if let Some(polls) = self.busy_poll.filter(|&time| time >= ACK_HOLD)
            && tcp.ack_hold.is_zero()
        {
            tcp.ack_hold = ACK_HOLD;
            if tcp.answer_hold.is_zero() {
                // It sleeps after that, and would be late by its timer's granularity.
                tcp.answer_hold = ANSWER_HOLD.min(polls);
            }
        }
        tcp
    }

    /// A shard for each queue: one stack together.
    pub(super) fn shards(
        &self,
        queues: Vec<Queue>,
        interface: &Interface,
        clock: Clock,
        life: Option<&Life>,
        rng: &mut Rng,
    ) -> Result<Vec<ShardParts>, StartError> {
        let rss = interface.rx_hash().and_then(|hash| Rss::new(hash.key, hash.table)).map(Arc::new);
        let mut capture = None;
        let mut shards = Vec::new();
        for (position, Queue { number, device, umem, .. }) in queues.into_iter().enumerate() {
            let device = self.wrap(Box::new(device), position, interface, clock, &mut capture)?;
            let rng = Rng::from_os().map_err(StartError::Random)?;
            let mut stack = stack::Stack::new(clock.now(), interface.mac, self.vlan, umem, rng);
            stack.set_tcp_config(self.tcp_of_driver());
            if let Some(life) = life {
                stack.set_secret(life.key().clone());
            }
            if let Some(rss) = &rss {
                stack.place(Arc::clone(rss), number);
            }
            shards.push((stack, device));
        }
        stack::unite(shards.iter_mut().map(|(stack, _)| stack), rng);
        Ok(shards)
    }

    /// Puts in front of a queue's device what was asked for. All queues are captured to one file.
    fn wrap(
        &self,
        device: Box<dyn Device>,
        position: usize,
        interface: &Interface,
        clock: Clock,
        capture: &mut Option<Recorder>,
    ) -> Result<Box<dyn Device>, StartError> {
        // The capture is next to the NIC: it shows what really was on the wire, faults included.
        let device: Box<dyn Device> = match &self.capture {
            None => device,
            Some(path) => {
                let error = |source| StartError::Capture { path: path.clone(), source };
                let recorder = match capture {
                    Some(recorder) => recorder,
                    None => {
                        let since_1970 =
                            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                        let epoch = since_1970.saturating_sub(clock.now() - Instant::ZERO);
                        capture.insert(Recorder::create(path, &interface.name, epoch).map_err(error)?)
                    }
                };
                Box::new(Capture::new(device, recorder))
            }
        };
        Ok(match self.faults {
            None => device,
            // Another seed for each queue, or all would be hit at once.
            Some(faults) => {
                let seed = faults.seed.wrapping_add(position as u64);
                Box::new(Fault::new(device, FaultSpec { seed, ..faults }))
            }
        })
    }
}

/// Whether what arrives comes to the one queue that is bound.
fn check_spread(interface: &Interface, bound: u32) -> Result<(), StartError> {
    let (name, all) = (&interface.name, interface.queues(None).len());
    let Some(table) = interface.rx_table() else {
        if all > 1 {
            tracing::warn!(
                "only queue {bound} of {name}'s {all} is bound: frames for our address that arrive on another one go \
                 to the kernel and are lost to us, unless `{}` sends all to the first, and --queue 0 binds that",
                only_first_queue(name).command()
            );
        }
        return Ok(());
    };
    match judge(&table, interface.flow_rules(), bound) {
        Spread::Confined if bound == 0 => {
            tracing::info!(target: STORY, "{name} puts all that it receives in queue 0");
        }
        // What has no hash is put in the first queue by many cards, whatever the table says; igb does.
        Spread::Confined => tracing::warn!(
            "{name} hashes to queue {bound} only, but what it can't hash, ARP for one, may arrive on queue 0, and is lost to us \
             then: `{}` and --queue 0 are safe",
            only_first_queue(name).command()
        ),
        Spread::Ruled { unbound } => tracing::warn!(
            "only queue {bound} of {name} is bound, and its hash uses queue {unbound} too: frames for our address are \
             lost to us unless its rules (`ethtool -n {name}`) put them, ARP included, in queue {bound}"
        ),
        Spread::Wide { unbound } => {
            return Err(StartError::Spread { interface: name.clone(), bound, unbound });
        }
    }
    Ok(())
}

/// Whether the kernel would not survive our frames. Who names a mode that copies knows that it does.
fn is_fatal(driver: Option<&str>, mode: Mode, release: &str) -> bool {
    let insists = matches!(mode, Mode::NativeCopy | Mode::Generic);
    driver == Some("veth") && !insists && kernel::panics_on_copied_frames(release)
}

/// Where frames for us may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// On the queue that is bound.
    Confined,
    /// On another one, unless rules of the operator's say otherwise.
    Ruled { unbound: u32 },
    /// On another one.
    Wide { unbound: u32 },
}

/// By the indirection table and the number of rules.
fn judge(table: &[u32], rules: u32, bound: u32) -> Spread {
    match table.iter().copied().find(|&queue| queue != bound) {
        None => Spread::Confined,
        Some(unbound) if rules > 0 => Spread::Ruled { unbound },
        Some(unbound) => Spread::Wide { unbound },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_pair_is_refused_where_the_kernel_would_panic() {
        let (veth, card) = (Some("veth"), Some("igb"));
        assert!(is_fatal(veth, Mode::Auto, "6.16.12") && is_fatal(veth, Mode::Native, "6.17.0-8-generic"));
        assert!(!is_fatal(card, Mode::Auto, "6.16.12") && !is_fatal(None, Mode::Auto, "6.16.12"));
        assert!(!is_fatal(veth, Mode::NativeCopy, "6.16.12"), "somebody insists");
        assert!(!is_fatal(veth, Mode::Auto, "6.18.44"));
        let (interface, release) = ("eth1".to_owned(), "6.16.12".to_owned());
        let error = StartError::KernelPanics { interface, release }.to_string();
        assert!(error.contains("6.18 or later") && error.contains("--mode native-copy"), "{error}");
    }

    #[test]
    fn a_driver_that_polls_holds_acks_unless_somebody_has_chosen_how_long() {
        let hold = |polls: Option<Duration>, chosen: Duration| {
            let config = tcp::Config { ack_hold: chosen, ..tcp::Config::default() };
            Builder::default().busy_poll(polls).tcp(config).tcp_of_driver().ack_hold
        };
        let (not, chosen) = (Duration::ZERO, Duration::from_micros(5));
        assert_eq!(hold(Some(Duration::from_millis(1)), not), ACK_HOLD);
        assert_eq!(hold(Some(ACK_HOLD), not), ACK_HOLD);
        assert_eq!(hold(Some(ACK_HOLD - Duration::from_micros(1)), not), not, "it may sleep before that");
        assert_eq!(hold(None, not), not);
        for polls in [None, Some(ACK_HOLD), Some(Duration::from_secs(1))] {
            assert_eq!(hold(polls, chosen), chosen);
        }
        let for_an_answer = |polls: Duration, chosen: Duration| {
            let config = tcp::Config { answer_hold: chosen, ..tcp::Config::default() };
            Builder::default().busy_poll(Some(polls)).tcp(config).tcp_of_driver().answer_hold
        };
        assert_eq!(for_an_answer(Duration::from_millis(1), not), ANSWER_HOLD);
        assert_eq!(for_an_answer(ANSWER_HOLD / 2, not), ANSWER_HOLD / 2, "it may sleep after that");
        assert_eq!(for_an_answer(ACK_HOLD / 2, not), not);
        assert_eq!(for_an_answer(ANSWER_HOLD / 2, chosen), chosen);
    }

    #[test]
    fn what_else_was_chosen_of_tcp_is_the_same_for_a_driver_that_polls() {
        let config = tcp::Config { send_buffer: 12_345, nodelay: true, ..tcp::Config::default() };
        let builder = Builder::default().busy_poll(Some(Duration::from_millis(1))).tcp(config.clone());
        let expected = tcp::Config { ack_hold: ACK_HOLD, answer_hold: ANSWER_HOLD, ..config };
        assert_eq!(format!("{:?}", builder.tcp_of_driver()), format!("{expected:?}"));
    }

    #[test]
    fn one_queue_is_enough_if_the_card_uses_no_other() {
        assert_eq!(judge(&[2; 128], 0, 2), Spread::Confined);
        assert_eq!(judge(&[0, 1, 2, 3], 0, 0), Spread::Wide { unbound: 1 });
        assert_eq!(judge(&[0, 1, 2, 3], 4, 2), Spread::Ruled { unbound: 0 });
        let error = StartError::Spread { interface: "eth1".to_owned(), bound: 2, unbound: 0 }.to_string();
        assert!(error.contains("`sudo ethtool -X eth1 equal 1`"), "{error}");
    }
}
