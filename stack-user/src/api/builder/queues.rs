//! From a NIC's queues to shards: each queue is a device with memory of its own, and each device has a stack.

use std::{sync::Arc, time::SystemTime};

use super::{Builder, StartError};
use crate::{
    device::{
        Device, Umem, busy_poll,
        capture::{Capture, Recorder},
        fault::{Fault, FaultSpec},
        interface::Interface,
        xdp::{self, Bound, XdpDevice, program::Program},
    },
    net::rss::Rss,
    rng::Rng,
    runtime::{Clock, Life},
    stack,
    telemetry::STORY,
    time::Instant,
};

/// A queue that is bound.
pub(super) struct Queue {
    number: u32,
    device: XdpDevice,
    umem: Umem,
    zero_copy: bool,
}

/// What runs on a queue.
type ShardParts = (stack::Stack<Umem>, Box<dyn Device>);

impl Builder {
    /// Opens a device on each queue, with memory of its own, and tells the program of its socket.
    pub(super) fn bind(
        &self,
        interface: &Interface,
        program: &mut Program,
    ) -> Result<Vec<Queue>, StartError> {
        let numbers = interface.queues(self.queue);
        let options = xdp::Options {
            copying: self.mode.copying(program.is_generic()),
            chunks_per_queue: xdp::Options::chunks_for_each_of(numbers.len()),
            ..Default::default()
        };
        let (mut queues, mut all) = (Vec::new(), Vec::new());
        for number in numbers {
            let (device, umem, bound) = xdp::open(&interface.name, &[number], &options)?;
            for (queue, socket) in device.sockets() {
                program.bind_socket(queue, socket)?;
            }
            queues.push(Queue { number, device, umem, zero_copy: bound.zero_copy });
            all.push(bound);
        }
        tracing::info!(target: STORY, "AF_XDP sockets bound to {}: {}", interface.name, Bound::all(&all));
        Ok(queues)
    }

    /// Has the sockets of the queues poll the driver, if that was asked for.
    pub(super) fn poll_busily(&self, interface: &Interface, queues: &[Queue]) -> Option<busy_poll::Held> {
        let time = self.busy_poll?;
        let zero_copy = queues.iter().any(|queue| queue.zero_copy);
        let sockets = queues.iter().flat_map(|queue| queue.device.sockets());
        busy_poll::start(interface, sockets, zero_copy, time)
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
            stack.set_tcp_config(self.tcp.clone());
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
