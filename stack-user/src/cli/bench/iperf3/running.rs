//! A test while it runs: its streams, its clock and its reports, which are the same at both ends.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    control::{Broken, Cookie},
    json::Document,
    meter::{Cpu, CpuClock, Interval, Meter, Probe, ids},
    parameters::Test,
    report::{Side, Stream, Summary, Text},
    results::Results,
    stream::{Counters, Goal, Shared, Work, payload},
    udp,
};
use crate::cli::{
    bench::transport::{Datagrams, Flow, Transport},
    console::Output,
    network::Connection,
};

/// How long nothing may come or go: what iperf3 takes for the end of the other end.
const STALLED: Duration = Duration::from_secs(120);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How reports are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) json: bool,
    /// Zero for none before the end.
    pub(super) every: Duration,
    pub(super) verbose: bool,
}

/// What a stream goes over.
enum Carrier<N: Transport> {
    Tcp(Shared<N::Stream>),
    /// The server's streams have one socket.
    Udp(Arc<N::Datagrams>),
}

/// A test with its streams.
pub(super) struct Running<N: Transport> {
    pub(super) test: Test,
    style: Style,
    text: Text,
    json: Option<Document>,
    meters: Vec<Meter>,
    streams: Vec<Carrier<N>>,
    tasks: JoinSet<io::Error>,
    pub(super) sent: Arc<Goal>,
    pub(super) received: Arc<Goal>,
    cpu: CpuClock,
    is_omitting: bool,
}

impl<N: Transport> Running<N> {
    pub(super) fn new(side: Side, test: Test, style: Style) -> Self {
        Self {
            style,
            text: Text::new(side, test.clone()),
            json: style.json.then(|| Document::new(side, test.clone())),
            meters: Vec::new(),
            streams: Vec::new(),
            tasks: JoinSet::new(),
            sent: Goal::new(test.end),
            received: Goal::new(test.end),
            cpu: CpuClock::start(),
            is_omitting: test.omit > 0,
            test,
        }
    }

    /// One more stream: the next in the order that both ends have.
    pub(super) fn add(&mut self, stream: N::Stream, remote: SocketAddr, sends: bool) {
        let local = stream.local_addr();
        let stream = Shared::new(stream);
        let asked = stream.clone();
        let probe: Probe = Box::new(move || asked.lock().fares());
        self.add_carrier(Carrier::Tcp(stream), (local, remote), sends, probe);
    }

    /// The same by UDP, where `local` is how the other end knows this one.
    pub(super) fn add_datagrams(
        &mut self,
        socket: Arc<N::Datagrams>,
        (local, remote): (Option<IpAddr>, SocketAddr),
        sends: bool,
    ) {
        let port = socket.local_addr().map_or(0, |local| local.port());
        let local = local.map(|ip| SocketAddr::new(ip, port));
        self.add_carrier(Carrier::Udp(socket), (local, remote), sends, Box::new(|| None));
    }

    fn add_carrier(
        &mut self,
        carrier: Carrier<N>,
        ends: (Option<SocketAddr>, SocketAddr),
        sends: bool,
        probe: Probe,
    ) {
        let id = ids().nth(self.meters.len()).unwrap_or(u32::MAX);
        self.meters.push(Meter::new(id, sends, ends, Arc::<Counters>::default(), probe));
        self.streams.push(carrier);
    }

    /// Says who talks with whom.
    pub(super) async fn tell_connected(
        &mut self,
        output: &mut Output,
        peer: (&str, u16),
        cookie: &Cookie,
        mss: u64,
    ) -> Result<(), Broken> {
        match &mut self.json {
            Some(document) => {
                document.connected(peer, cookie, mss, &self.meters);
                Ok(())
            }
            None => write(output, &self.text.connected(&self.meters)).await,
        }
    }

    /// Sends and receives, and reports in between, until `until` is ready.
    pub(super) async fn run<T>(
        &mut self,
        output: &mut Output,
        until: impl Future<Output = T>,
    ) -> Result<T, Broken> {
        let mut until = pin!(until);
        let start = Instant::now();
        self.cpu = CpuClock::start();
        self.start_streams();
        self.begin(start);
        let every = if self.style.every.is_zero() { Duration::MAX } else { self.style.every };
        let mut tick = timer(start, every);
        let mut omit_end = pin!(sleep_until(start + Duration::from_secs(self.test.omit)));
        let mut look = timer(start, LOOK);
        let (mut seen, mut seen_at) = (0, start);
        loop {
            tokio::select! {
                biased;
                done = &mut until => return Ok(done),
                Some(failed) = self.tasks.join_next() => {
                    return Err(Broken::Stream(failed.unwrap_or_else(|_| io::ErrorKind::Other.into())));
                }
                () = &mut omit_end, if self.is_omitting => {
                    if !self.style.every.is_zero() {
                        self.tell_interval(output).await?;
                    }
                    self.is_omitting = false;
                    let now = Instant::now();
                    self.begin(now);
                    tick = timer(now, every);
                }
                _ = tick.tick() => self.tell_interval(output).await?,
                now = look.tick() => {
                    let bytes = self.meters.iter().map(|meter| meter.counters.bytes.get()).sum::<u64>();
                    if bytes != seen {
                        (seen, seen_at) = (bytes, now);
                    } else if now - seen_at >= STALLED {
                        return Err(Broken::Stalled(STALLED.as_secs()));
                    }
                }
            }
        }
    }

    fn start_streams(&mut self) {
        let payload = payload(&self.test);
        let wide = self.test.wide_counters;
        // What comes in at each of the sockets: those of a client have one stream each, and a server's has all of them.
        let mut sockets: Vec<(&Arc<N::Datagrams>, Vec<_>)> = Vec::new();
        for (carrier, meter) in self.streams.iter().zip(&self.meters) {
            let goal = if meter.sends { &self.sent } else { &self.received };
            let work = Work {
                counters: Arc::clone(&meter.counters),
                goal: Arc::clone(goal),
                payload: Arc::clone(&payload),
                rate: self.test.rate,
                burst: self.test.burst,
            };
            match carrier {
                Carrier::Tcp(stream) => {
                    let runtime = stream.lock().runtime().unwrap_or_else(Handle::current);
                    if meter.sends {
                        self.tasks.spawn_on(stream.clone().send(work), &runtime);
                    } else {
                        self.tasks.spawn_on(stream.clone().receive(work), &runtime);
                    }
                }
                Carrier::Udp(socket) if meter.sends => {
                    self.tasks.spawn(udp::send_all(Arc::clone(socket), meter.remote, wide, work));
                }
                Carrier::Udp(socket) => {
                    let stream = (meter.remote, work.counters);
                    match sockets.iter_mut().find(|(known, _)| Arc::ptr_eq(known, socket)) {
                        Some((_, streams)) => streams.push(stream),
                        None => sockets.push((socket, vec![stream])),
                    }
                }
            }
        }
        for (socket, streams) in sockets {
            let goal = Arc::clone(&self.received);
            self.tasks.spawn(udp::receive_all(Arc::clone(socket), streams, goal, wide));
        }
    }

    fn begin(&mut self, now: Instant) {
        self.meters.iter_mut().for_each(|meter| meter.begin(now));
        if !self.is_omitting {
            self.sent.begin();
            self.received.begin();
        }
    }

    async fn tell_interval(&mut self, output: &mut Output) -> Result<(), Broken> {
        let now = Instant::now();
        let intervals: Vec<Interval> = self.meters.iter_mut().map(|meter| meter.interval(now)).collect();
        let rows: Vec<_> = self.meters.iter().zip(intervals).collect();
        match &mut self.json {
            Some(document) => {
                document.interval(&rows, self.is_omitting);
                Ok(())
            }
            None => write(output, &self.text.interval(&rows, self.is_omitting)).await,
        }
    }

    /// Ends the last interval, and with it what counts, and has no more sent.
    pub(super) async fn end(&mut self, output: &mut Output) -> Result<(), Broken> {
        let shortest = if self.style.every.is_zero() { 0.0 } else { self.style.every.as_secs_f64() * 0.1 };
        let now = Instant::now();
        let intervals: Vec<Interval> = self.meters.iter_mut().map(|meter| meter.interval(now)).collect();
        let is_worth_it =
            intervals.iter().any(|interval| interval.bytes > 0 || interval.seconds() >= shortest);
        // What was received late has to be taken off the streams all the same, or the other end can't stop.
        if !self.meters.iter().any(|meter| !meter.sends) {
            self.tasks.abort_all();
        }
        if !is_worth_it {
            return Ok(());
        }
        let rows: Vec<_> = self.meters.iter().zip(intervals).collect();
        match &mut self.json {
            Some(document) => {
                document.interval(&rows, self.is_omitting);
                Ok(())
            }
            None => write(output, &self.text.interval(&rows, self.is_omitting)).await,
        }
    }

    /// Closes the streams, all of them before this returns: a receiver that reads to the end of a block, as iperf3 does when a
    /// test is over, would hear nothing else before.
    pub(super) async fn close(&mut self) {
        self.tasks.shutdown().await;
        self.meters.iter_mut().for_each(Meter::let_go);
        self.streams.clear();
    }

    /// What this end has measured.
    pub(super) fn results(&self) -> Results {
        let Cpu { total, user, system } = self.cpu.so_far();
        let senders: Vec<_> = self.meters.iter().filter(|meter| meter.sends).collect();
        let tells = senders.iter().any(|meter| meter.whole().retransmits.is_some());
        Results {
            cpu_util_total: total,
            cpu_util_user: user,
            cpu_util_system: system,
            sender_has_retransmits: if senders.is_empty() { -1 } else { tells.into() },
            congestion_used: self.congestion(),
            streams: self.meters.iter().map(Meter::results).collect(),
        }
    }

    fn congestion(&self) -> Option<String> {
        self.meters.first()?.fares().map(|fares| fares.congestion).filter(|name| !name.is_empty())
    }

    /// Tells what all of it was like: this end's results as they were told, and the other's, if it has told.
    pub(super) async fn tell_summary(
        &mut self,
        output: &mut Output,
        ours: &Results,
        theirs: Option<&Results>,
    ) -> Result<(), Broken> {
        let others = theirs.map(|theirs| theirs.of(self.meters.iter().map(|meter| meter.id))).transpose()?;
        let streams = self.meters.iter().enumerate().map(|(number, meter)| {
            let here = Some(meter.whole());
            let there = others.as_ref().and_then(|others| others.get(number)).map(|told| meter.others(told));
            let (sent, received) = if meter.sends { (here, there) } else { (there, here) };
            Stream { socket: meter.socket(), sends: meter.sends, sent, received }
        });
        let cpu = |results: &Results| Cpu {
            total: results.cpu_util_total,
            user: results.cpu_util_user,
            system: results.cpu_util_system,
        };
        let summary = Summary {
            streams: streams.collect(),
            here: cpu(ours),
            there: theirs.map(cpu),
            congestion_here: ours.congestion_used.clone(),
            congestion_there: theirs.and_then(|theirs| theirs.congestion_used.clone()),
        };
        match &mut self.json {
            Some(document) => {
                document.summary(&summary);
                Ok(())
            }
            None => write(output, &self.text.summary(&summary, self.style.verbose)).await,
        }
    }

    /// Ends the report, with why the test came to less than it should.
    pub(super) async fn finish(self, output: &mut Output, broken: Option<&Broken>) -> Result<(), Broken> {
        match self.json {
            Some(document) => {
                write(output, &document.finish(broken.map(ToString::to_string).as_deref())).await
            }
            None => Ok(()),
        }
    }
}

fn timer(start: Instant, every: Duration) -> tokio::time::Interval {
    // A century is as good as never.
    let every = every.min(Duration::from_secs(100 * 365 * 24 * 3600));
    let mut timer = interval_at(start + every, every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    timer
}

/// Writes, so that whoever waits for a line has it.
pub(super) async fn write(output: &mut Output, text: &str) -> Result<(), Broken> {
    output.write_all(text.as_bytes()).await.map_err(Broken::Output)?;
    output.flush().await.map_err(Broken::Output)
}
