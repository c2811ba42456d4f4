//! The options that every subcommand has: where the stack runs, and as whom.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::Deserialize;
use tracing::level_filters::LevelFilter;

use super::privileges::{Filter, UserSpec};
use crate::api::{AddressChoice, ProgramChoice};
use crate::device::fault::FaultSpec;
use crate::device::xdp::{HugePages, Mode, RingSize};
use crate::tcp::{self, congestion::Algorithm};

/// Microseconds that may be polled without a frame.
///
/// Lower, and the time between two requests of an interactive user does not fit in; higher, and a core is busy all the
/// time, with next to nothing.
pub(super) const BUSY_POLL_MAX: u32 = 1_000_000;

/// How to bring up the stack. Each option can also be given as an environment variable.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Network options")]
pub struct GlobalOptions {
    /// Run on this network interface [default: the one with the default route]
    #[arg(long, global = true, env = "XSTACK_INTERFACE", hide_env_values = true, value_name = "NAME")]
    pub interface: Option<String>,

    /// Claim this address, ADDR[/PREFIX], or `auto` for a free one of the interface's subnet; repeat for several
    ///
    /// The address is probed before it is used (RFC 5227): one that another host has is refused. Of several, a connection
    /// comes from the one in its peer's subnet, else from the first that has a router.
    #[arg(
        long,
        global = true,
        env = "XSTACK_ADDRESS",
        hide_env_values = true,
        value_name = "ADDR[/PREFIX]|auto",
        value_delimiter = ','
    )]
    pub address: Vec<AddressChoice>,

    /// Send what is not on the subnet to this router [default: the interface's own gateway]
    #[arg(long, global = true, env = "XSTACK_GATEWAY", hide_env_values = true, value_name = "ADDR")]
    pub gateway: Option<Ipv4Addr>,

    /// Ask this name server; repeat for several [default: the host's own]
    #[arg(
        long,
        global = true,
        env = "XSTACK_DNS",
        hide_env_values = true,
        value_name = "ADDR",
        value_delimiter = ','
    )]
    pub dns: Vec<IpAddr>,

    /// How to drive the interface: auto (the best that works), native, native-zerocopy, native-copy or generic
    #[arg(
        long,
        global = true,
        env = "XSTACK_MODE",
        hide_env_values = true,
        value_name = "MODE",
        default_value_t
    )]
    pub mode: Mode,

    /// Bind this queue of the interface only [default: all of them]
    #[arg(long, global = true, env = "XSTACK_QUEUE", hide_env_values = true, value_name = "N")]
    pub queue: Option<u32>,

    /// Give each ring of a queue N descriptors, a power of two from 64 to 2048 [default: 1024]
    ///
    /// Larger rings hold longer bursts, smaller ones stay in the processor's cache.
    #[arg(long, global = true, env = "XSTACK_RING_SIZE", hide_env_values = true, value_name = "N")]
    pub ring_size: Option<RingSize>,

    /// Take the memory for frames from huge pages: auto (if enough are free), never or always
    ///
    /// The system has to have them set aside (`sysctl vm.nr_hugepages`), 16 MB for each queue.
    #[arg(
        long,
        global = true,
        env = "XSTACK_HUGE_PAGES",
        hide_env_values = true,
        value_name = "WHEN",
        default_value_t
    )]
    pub huge_pages: HugePages,

    /// Run the shards, one for each queue, on N threads at most [default: for servers one for each core, else 1]
    #[arg(long, global = true, env = "XSTACK_THREADS", hide_env_values = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Ask the NIC's driver for frames, and wait for interrupts only when none came or went for so long [default: 100]
    ///
    /// It costs a core for each shard while there is traffic, and saves what an interrupt and waking up take. The interrupts
    /// are held back meanwhile; that setting is undone at the end, also if xstack is killed.
    #[arg(long, global = true, env = "XSTACK_BUSY_POLL", hide_env_values = true, value_name = "MICROSECONDS",
          num_args = 0..=1, require_equals = true, default_missing_value = "100",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BUSY_POLL_MAX)))]
    pub busy_poll: Option<u32>,

    /// Write every frame that we send and receive to FILE, as pcapng
    #[arg(long, global = true, env = "XSTACK_PCAP", hide_env_values = true, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Damage our own traffic on purpose, for example loss=0.05,reorder=0.05,dup=0.02,seed=1
    ///
    /// Shares of frames, from 0 to 1 or in per cent: loss (with burst=N, in bursts of N on average), reorder, dup, corrupt.
    /// Times: delay=20ms. The link: rate=100mbit, queue=BYTES. Each takes rx. or tx. in front for one direction only.
    /// The same seed hits the same frames again.
    #[arg(long, global = true, env = "XSTACK_FAULT", hide_env_values = true, value_name = "SPEC")]
    pub fault: Option<FaultSpec>,

    /// Which XDP program: the one pinned in DIR, our own, or the one that `xstack attach` left if there is one [default: auto]
    #[arg(
        long,
        global = true,
        env = "XSTACK_PROGRAM",
        hide_env_values = true,
        value_name = "pinned:DIR|own|auto"
    )]
    pub program: Option<ProgramChoice>,

    /// How long to probe an address before claiming it
    #[arg(
        long,
        global = true,
        env = "XSTACK_ACD",
        hide_env_values = true,
        value_name = "SCHEDULE",
        value_enum,
        default_value_t
    )]
    pub acd: AcdSchedule,

    /// The VLAN that the address is on, where frames come tagged (IEEE 802.1Q)
    #[arg(long, global = true, env = "XSTACK_VLAN", hide_env_values = true, value_name = "ID",
          value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub vlan: Option<u16>,

    /// Keep a secret key and the clock in DIR, so that a restart goes on where this ends, even if it is killed
    ///
    /// For servers, and for whoever uses the same ports again: new connections fit in with what peers still have of old ones
    /// (RFC 6528).
    #[arg(long, global = true, env = "XSTACK_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// How TCP finds out how fast it may send
    #[arg(
        long,
        global = true,
        env = "XSTACK_CONGESTION",
        hide_env_values = true,
        value_name = "ALGORITHM",
        value_parser = algorithms(),
        default_value_t
    )]
    pub congestion: Algorithm,

    /// Let routers mark packets of TCP where they would drop them (ECN, RFC 3168)
    #[arg(long, global = true, env = "XSTACK_ECN", hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub ecn: bool,

    /// Who root becomes once everything is open [default: who called sudo, else nobody]
    ///
    /// By name or number. Whoever runs xstack with capabilities of its file instead of root stays who they are. This one
    /// option stands before the subcommand, as curl has one of its own with this name.
    #[arg(long, env = "XSTACK_USER", hide_env_values = true, value_name = "NAME|UID[:GROUP]")]
    pub user: Option<UserSpec>,

    /// What happens to system calls that the command has no use for
    #[arg(
        long,
        global = true,
        env = "XSTACK_SECCOMP",
        hide_env_values = true,
        value_name = "ACTION",
        value_enum,
        default_value_t
    )]
    pub seccomp: Filter,

    /// Log to stderr: off, error, warn, info, debug or trace
    #[arg(
        long,
        global = true,
        env = "XSTACK_LOG",
        hide_env_values = true,
        value_name = "LEVEL",
        default_value = "warn"
    )]
    pub log: LevelFilter,
}

impl GlobalOptions {
    /// Whether everything about the network is left to us, so that a running daemon's is as good.
    pub(super) fn names_no_network(&self) -> bool {
        let named = [
            self.interface.is_some(),
            !self.address.is_empty(),
            self.gateway.is_some(),
            !self.dns.is_empty(),
            self.mode != Mode::default(),
            self.queue.is_some(),
            self.busy_poll.is_some(),
            self.ring_size.is_some(),
            self.huge_pages != HugePages::default(),
            self.pcap.is_some(),
            self.fault.is_some(),
            self.program.is_some(),
            self.acd != AcdSchedule::default(),
            self.vlan.is_some(),
            self.state_dir.is_some(),
            self.congestion != Algorithm::default(),
            self.ecn,
        ];
        !named.contains(&true)
    }

    /// An option that is given and makes sense for one network only, by its name.
    pub(super) fn names_one_network(&self) -> Option<&'static str> {
        let named = [
            ("--interface", self.interface.is_some()),
            ("--address", !self.address.is_empty()),
            ("--gateway", self.gateway.is_some()),
            ("--queue", self.queue.is_some()),
            ("--vlan", self.vlan.is_some()),
            ("--program", self.program.is_some()),
            ("--pcap", self.pcap.is_some()),
        ];
        named.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }

    /// What TCP connections start with.
    pub(super) fn tcp(&self) -> tcp::Config {
        tcp::Config { congestion: self.congestion, ecn: self.ecn, ..tcp::Config::default() }
    }
}

/// Reads the name of any algorithm that there is.
fn algorithms() -> impl TypedValueParser<Value = Algorithm> {
    PossibleValuesParser::new(Algorithm::ALL.iter().map(|algorithm| algorithm.name()))
        .try_map(|name| name.parse::<Algorithm>())
}

/// How patiently a conflict about the address is looked for (RFC 5227 §2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AcdSchedule {
    /// Under 300 ms: right for a wired LAN
    #[default]
    Fast,
    /// The RFC's own timing, some six seconds
    Rfc,
}
