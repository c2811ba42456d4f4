//! `xstack bench pump`: frames over the device, without a protocol: what any stack over it can reach at most.
//!
//! The stack claims its address as ever, and then [lends](crate::api) its device: it goes on answering for the address, and all
//! frames that are the pump's go past it. So everything below the protocols is the same: XDP program, rings, memory.

mod engine;
mod frames;
mod report;
mod roles;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
};

use clap::{Args, Subcommand};

use self::{
    engine::{Engine, Role},
    frames::{Station, Template},
    report::{Report, rates},
    roles::{Echo, Pinger, Receiver, Sender, Tally},
};
use crate::{
    api::{Loan, Stack, UdpSocket},
    cli::{
        console::{Console, Diagnostics},
        error::{Exit, Failure},
        network::Network,
        relay::options::seconds,
    },
    device::BURST,
    runtime::Clock,
    time::{Duration, Instant},
    wire::{MacAddr, ethernet},
};

/// How long the pump works before it looks whether it shall stop. Lower, and looking costs; higher, and Ctrl-C feels slow.
const SLICE: Duration = Duration::from_millis(20);

/// How long a neighbour may take to tell its link-layer address.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(3);

/// The port of pumps: discard (RFC 863).
const PORT: u16 = 9;

/// What `xstack bench pump` can be told.
#[derive(Args, Debug)]
pub struct PumpOptions {
    /// What to do with frames.
    #[command(subcommand)]
    role: RoleOptions,

    /// Tell what happens, on stderr
    #[arg(short = 'v', long, global = true)]
    pub(super) verbose: bool,
}

#[derive(Subcommand, Debug)]
enum RoleOptions {
    /// Send frames, as many as the ring takes
    Tx(SendOptions),
    /// Count the frames that come, until no more do
    Rx(ReceiveOptions),
    /// Send back the frames that come, until no more do
    Echo(ReceiveOptions),
    /// Send a frame, wait until an echo sends it back, and send the next
    Ping(PingOptions),
}

#[derive(Args, Debug)]
struct SendOptions {
    #[command(flatten)]
    to: Destination,

    /// Bytes of a frame, without its check sequence [default: the longest that the link takes]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(frames::MIN as i64..))]
    size: Option<u16>,

    /// Send this many seconds
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    time: Duration,

    /// Put this many frames on the ring before the kernel is called
    #[arg(long, value_name = "FRAMES", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=BURST as i64))]
    burst: u16,

    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct ReceiveOptions {
    /// Stop this many seconds after the first frame [default: a second after the last]
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = seconds)]
    time: Option<Duration>,

    /// Give up if no frame has come for so long
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    wait: Duration,

    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct PingOptions {
    #[command(flatten)]
    to: Destination,

    /// Bytes of a frame, without its check sequence
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(frames::MIN as i64..))]
    size: u16,

    /// Do so for this many seconds
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    time: Duration,

    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Destination {
    /// Where to, an address on the same link
    #[arg(value_name = "ADDR")]
    host: Ipv4Addr,

    /// The station that has it [default: what it answers by ARP]
    #[arg(long, value_name = "MAC")]
    to_mac: Option<MacAddr>,
}

#[derive(Args, Debug)]
struct Common {
    /// The UDP port that pumps know their frames by, the same at both ends
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = PORT)]
    port: u16,

    /// Tell how it goes every so many seconds, on stderr; 0 for never
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,

    /// Print the result as one JSON object
    #[arg(short = 'J', long)]
    json: bool,
}

/// Pumps until it is done, or told to stop.
pub(super) async fn run<N: Network>(
    options: PumpOptions,
    mut console: Console,
    network: &N,
    mut stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    let stack = network.ours().ok_or_else(|| {
        Failure::Usage("the pump is for our own device: it can't be run over the kernel's sockets".to_owned())
    })?;
    match options.role {
        RoleOptions::Tx(SendOptions { to, size, time, burst, common }) => {
            let template = template(stack, &to, size, common.port).await?;
            let pump = Pump::new(stack, common)?;
            let sender = Sender::new(template, burst.into(), pump.clock, time);
            let (sender, exit) =
                pump.run(sender, &console.diagnostics, |role| role.tally, stop.as_mut()).await;
            let report = Report { role: "tx", tally: sender.tally, lost: None, latency: None };
            pump.print(&mut console, &report).await?;
            Ok(exit)
        }
        RoleOptions::Rx(ReceiveOptions { time, wait, common }) => {
            let pump = Pump::new(stack, common)?;
            let receiver = Receiver::new(pump.clock, time, wait);
            let (receiver, exit) =
                pump.run(receiver, &console.diagnostics, |role| role.tally, stop.as_mut()).await;
            pump.print_received("rx", &receiver, &mut console).await?;
            Ok(exit)
        }
        RoleOptions::Echo(ReceiveOptions { time, wait, common }) => {
            let pump = Pump::new(stack, common)?;
            let echo = Echo::new(Receiver::new(pump.clock, time, wait));
            let (echo, exit) =
                pump.run(echo, &console.diagnostics, |role| role.receiver.tally, stop.as_mut()).await;
            pump.print_received("echo", &echo.receiver, &mut console).await?;
            Ok(exit)
        }
        RoleOptions::Ping(PingOptions { to, size, time, common }) => {
            let template = template(stack, &to, Some(size), common.port).await?;
            let pump = Pump::new(stack, common)?;
            let pinger = Pinger::new(template, pump.clock, time)
                .ok_or_else(|| Failure::Usage("there is no histogram to count in".to_owned()))?;
            let (pinger, exit) =
                pump.run(pinger, &console.diagnostics, |role| role.tally, stop.as_mut()).await;
            let (lost, latency) = (Some(pinger.lost), Some(&pinger.latency));
            pump.print(&mut console, &Report { role: "ping", tally: pinger.tally, lost, latency }).await?;
            if exit == Exit::Success && pinger.tally.frames == 0 {
                return Err(Failure::Bench(format!(
                    "no frame came back: does {} run `xstack bench pump echo`?",
                    to.host
                )));
            }
            Ok(exit)
        }
    }
}

/// What to send to the destination.
async fn template(
    stack: &Stack,
    to: &Destination,
    size: Option<u16>,
    port: u16,
) -> Result<Template, Failure> {
    let refused = |what: String| Err(Failure::Usage(what));
    let Some(IpAddr::V4(ours)) = stack.address() else {
        return refused("there is no address to send from".to_owned());
    };
    let vlan = stack.vlan();
    let header = ethernet::LEN + if vlan.is_some() { ethernet::VLAN_LEN } else { 0 };
    let longest = usize::from(stack.mtu().unwrap_or(1500)) + header;
    let size = size.map_or(longest, usize::from);
    if size > longest {
        return refused(format!("the link takes frames of {longest} bytes, and not of {size}"));
    }
    let mac = match to.to_mac {
        Some(mac) => mac,
        None => neighbour(stack, ours, to.host).await?,
    };
    let from = Station { mac: stack.mac(), ip: ours };
    Ok(Template::new(from, Station { mac, ip: to.host }, vlan, port, size))
}

/// Asks who has the address.
async fn neighbour(stack: &Stack, ours: Ipv4Addr, host: Ipv4Addr) -> Result<MacAddr, Failure> {
    let failed = |error: std::io::Error| Failure::Interface(format!("cannot reach {host}: {error}"));
    let socket = UdpSocket::bind(stack, (ours, 0).into()).await.map_err(failed)?;
    // An empty datagram to the port of those who throw away what comes: it is the question for the address that is wanted.
    socket.send_to(&[], (host, PORT).into()).await.map_err(failed)?;
    let found = async {
        loop {
            if let Some(mac) = stack.neighbour(host.into()) {
                return mac;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(NEIGHBOUR_PATIENCE, found).await.map_err(|_| {
        Failure::Interface(format!("{host} does not answer: is it on this link? If it is, say --to-mac MAC"))
    })
}

/// The device that was lent, and how to tell what becomes of it.
struct Pump {
    loan: Loan,
    clock: Clock,
    common: Common,
}

impl Pump {
    fn new(stack: &Stack, common: Common) -> Result<Self, Failure> {
        let loan = stack
            .lend_device()
            .ok_or_else(|| Failure::Usage("the pump drives one queue: say which by --queue".to_owned()))?;
        let clock = loan.clock();
        Ok(Self { loan, clock, common })
    }

    /// Has a role work until it is over, or told to stop. Returns it, and how it ended.
    async fn run<R: Role>(
        &self,
        role: R,
        diagnostics: &Diagnostics,
        tally: impl Fn(&R) -> Tally,
        mut stop: Pin<&mut impl Future<Output = Exit>>,
    ) -> (R, Exit) {
        // Without descriptors to wait on it polls by the clock.
        let queues = self.loan.fds().unwrap_or_default();
        let mut engine = Engine::new(role, self.common.port, self.loan.busy_poll(), queues, self.clock);
        let mut told = (self.clock.now(), Tally::default());
        let exit = loop {
            let until = self.clock.now() + SLICE;
            let is_over = self.loan.with(|device, stack| {
                stack.handle_timeout(self.clock.now());
                engine.run(until, device, stack)
            });
            if is_over {
                break Exit::Success;
            }
            told = self.tell(diagnostics, told, tally(&engine.role));
            tokio::select! {
                biased;
                exit = &mut stop => break exit,
                () = tokio::task::yield_now() => {}
            }
        };
        self.loan.with(|_, stack| engine.finish(stack));
        (engine.role, exit)
    }

    /// Tells what has moved since it was last told, if that is long enough ago.
    fn tell(&self, diagnostics: &Diagnostics, told: (Instant, Tally), tally: Tally) -> (Instant, Tally) {
        let (now, (then, before)) = (self.clock.now(), told);
        let time = now.since(then);
        if self.common.interval.is_zero() || time < self.common.interval {
            return told;
        }
        let (frames, bytes) = (tally.frames - before.frames, tally.bytes - before.bytes);
        if tally.frames > 0 {
            diagnostics.line(&rates(frames, bytes, time));
        }
        (now, tally)
    }

    async fn print_received(
        &self,
        role: &'static str,
        receiver: &Receiver,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let report = Report { role, tally: receiver.tally, lost: Some(receiver.lost()), latency: None };
        self.print(console, &report).await?;
        if receiver.tally.frames == 0 {
            return Err(Failure::Bench("no frame of a pump has come".to_owned()));
        }
        Ok(())
    }

    async fn print(&self, console: &mut Console, report: &Report<'_>) -> Result<(), Failure> {
        let text = if self.common.json { report.to_json().to_string() } else { report.to_text() };
        let failed = |source| Failure::Write { destination: "standard output".to_owned(), source };
        console.output.write_all(format!("{text}\n").as_bytes()).await.map_err(failed)?;
        console.output.flush().await.map_err(failed)
    }
}
