//! The daemon's configuration: a TOML file that is judged as a whole before anything is touched.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer};
use toml::Spanned;
use tracing::level_filters::LevelFilter;

use super::position::{ConfigError, Source};
use crate::{
    api::{AddressChoice, ProgramChoice},
    cli::{
        control::{
            self,
            access::{Access, NameOrId},
        },
        forward,
        global::{AcdSchedule, GlobalOptions},
        privileges::{Filter, UserSpec},
        proxy,
        relay::{Limits, Listen, Side},
    },
    device::xdp::Mode,
    tcp::congestion::Algorithm,
    time::Duration,
};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/xstack/xstack.toml";

/// Bytes of a configuration file. A larger one is somebody's mistake, and would be read into memory whole.
const MAX_FILE: u64 = 1024 * 1024;

/// The longest time of grace, in seconds. An hour; who waits longer does not want to stop.
const MAX_GRACE: f64 = 3600.0;

/// What the daemon does. Every key has a default, so that an empty file is a configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where the stack runs, and as whom.
    pub network: Network,
    /// What TCP connections start with.
    pub tcp: Tcp,
    /// The process.
    pub daemon: Process,
    /// The control socket.
    pub control: Control,
    /// What each forward and each proxy may take.
    pub limits: Limits,
    /// Forwards.
    pub forward: Vec<Spanned<forward::Spec>>,
    /// Proxies.
    pub proxy: Vec<Spanned<proxy::Config>>,
}

/// As the options of the same names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// The interface's name.
    pub interface: Option<String>,
    /// The addresses to claim.
    pub addresses: Vec<Spanned<Text<AddressChoice>>>,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// The name servers.
    pub dns: Vec<IpAddr>,
    /// How to drive the interface.
    pub mode: Option<Text<Mode>>,
    /// The one queue to bind.
    pub queue: Option<u32>,
    /// The VLAN of the addresses.
    pub vlan: Option<Spanned<u16>>,
    /// A program that is attached already.
    pub program: Option<Text<ProgramChoice>>,
    /// How long addresses are probed.
    pub acd: Option<AcdSchedule>,
}

/// As the options of the same names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tcp {
    /// How fast it may send.
    pub congestion: Option<Text<Algorithm>>,
    /// Whether explicit congestion notification is offered.
    pub ecn: bool,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Process {
    /// Whom root becomes once everything is open.
    pub user: Option<Text<UserSpec>>,
    /// What happens to system calls that the daemon has no use for.
    pub seccomp: Option<Filter>,
    /// Where what the next start goes on with is kept.
    pub state_directory: Option<PathBuf>,
    /// How much to log.
    pub log: Option<Text<LevelFilter>>,
    /// How long connections may go on when the daemon or their forward is stopped.
    #[serde(deserialize_with = "seconds")]
    pub grace: Duration,
}

/// The control socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Control {
    /// The socket's file.
    pub socket: PathBuf,
    /// Its mode. Who may is decided by credentials, so that all may try.
    #[serde(deserialize_with = "octal")]
    pub mode: u32,
    /// Users that may speak to the daemon, besides root and its own.
    pub allow_users: Vec<Spanned<NameOrId>>,
    /// Groups likewise.
    pub allow_groups: Vec<Spanned<NameOrId>>,
}

impl Default for Process {
    fn default() -> Self {
        Self { user: None, seccomp: None, state_directory: None, log: None, grace: Duration::from_secs(10) }
    }
}

impl Default for Control {
    fn default() -> Self {
        let socket = control::DEFAULT_PATH.into();
        Self { socket, mode: 0o666, allow_users: Vec::new(), allow_groups: Vec::new() }
    }
}

impl Config {
    /// Reads a file and judges it.
    ///
    /// # Errors
    /// Where it is wrong, and why.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source: std::io::Error| ConfigError::whole(path, format!("cannot be read: {source}"));
        let length = fs::metadata(path).map_err(failed)?.len();
        if length > MAX_FILE {
            return Err(ConfigError::whole(path, format!("has {length} bytes, which no configuration has")));
        }
        Self::parse(path, &fs::read_to_string(path).map_err(failed)?)
    }

    /// Judges the text of a file.
    ///
    /// # Errors
    /// Where it is wrong, and why.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source { path, text };
        let config: Self = toml::from_str(text).map_err(|error| source.syntax(&error))?;
        config.validate(&source)?;
        Ok(config)
    }

    /// What no single value shows.
    fn validate(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        self.check_network(source)?;
        self.access(source)?;
        self.check_places(source)
    }

    fn check_network(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        if let Some(vlan) = &self.network.vlan
            && !(1..=4094).contains(vlan.get_ref())
        {
            return Err(source.at(vlan.span(), format!("{} is no VLAN: 1 to 4094", vlan.get_ref())));
        }
        let addresses = &self.network.addresses;
        for (index, address) in addresses.iter().enumerate() {
            let AddressChoice::Given { address: ip, .. } = address.get_ref().0 else { continue };
            let is_same = |other: &&Spanned<Text<AddressChoice>>| matches!(other.get_ref().0, AddressChoice::Given { address, .. } if address == ip);
            if let Some(first) = addresses[..index].iter().find(is_same) {
                let line = source.line(first.span());
                return Err(source.at(address.span(), format!("{ip} is listed twice, first in line {line}")));
            }
        }
        Ok(())
    }

    /// Whatever listens, listens in a place of its own, and one that there is.
    fn check_places(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let forwards = self.forward.iter().map(|spec| (spec.span(), &spec.get_ref().from));
        let proxies = self
            .proxy
            .iter()
            .flat_map(|proxy| proxy.get_ref().listen.iter().map(move |listen| (proxy.span(), listen)));
        let places: Vec<_> = forwards.chain(proxies).collect();
        for (index, (span, listen)) in places.iter().enumerate() {
            if let Some((first, other)) = places[..index].iter().find(|(_, other)| other.overlaps(listen)) {
                let line = source.line(first.clone());
                let text = format!("{listen} overlaps {other} in line {line}: only one can listen there");
                return Err(source.at(span.clone(), text));
            }
            if let Listen::Tcp(Side::Ours, ip, _) = listen
                && !self.holds(*ip)
            {
                let text =
                    format!("{ip} is not in [network] addresses: listen on one of those, or on 0.0.0.0");
                return Err(source.at(span.clone(), text));
            }
        }
        Ok(())
    }

    /// Whether an address can be listened on, as far as it is known which there will be.
    fn holds(&self, ip: IpAddr) -> bool {
        let addresses = &self.network.addresses;
        let fits = |choice: &Spanned<Text<AddressChoice>>| match choice.get_ref().0 {
            AddressChoice::Auto => true,
            AddressChoice::Given { address, .. } => IpAddr::V4(address) == ip,
        };
        ip.is_unspecified() || addresses.is_empty() || addresses.iter().any(fits)
    }

    /// Who may use the control socket. Names are looked up again each time.
    ///
    /// # Errors
    /// Names that nobody has.
    pub fn access(&self, source: &Source<'_>) -> Result<Access, ConfigError> {
        let look_up = |names: &[Spanned<NameOrId>], find: fn(&NameOrId) -> Result<u32, String>| {
            names
                .iter()
                .map(|name| find(name.get_ref()).map_err(|error| source.at(name.span(), error)))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Access {
            users: look_up(&self.control.allow_users, NameOrId::uid)?,
            groups: look_up(&self.control.allow_groups, NameOrId::gid)?,
        })
    }

    /// The options that bring up the network: what the command line says, and where it does not, what the file does.
    pub fn options(&self, given: &GlobalOptions) -> GlobalOptions {
        let Network { interface, addresses, gateway, dns, mode, queue, vlan, program, acd } = &self.network;
        let mut options = given.clone();
        fill(&mut options.interface, interface.clone());
        if options.address.is_empty() {
            options.address = addresses.iter().map(|address| address.get_ref().0).collect();
        }
        fill(&mut options.gateway, *gateway);
        fill(&mut options.queue, *queue);
        fill(&mut options.vlan, vlan.as_ref().map(|vlan| *vlan.get_ref()));
        fill(&mut options.program, program.as_ref().map(|program| program.0.clone()));
        fill(&mut options.user, self.daemon.user.as_ref().map(|user| user.0.clone()));
        fill_default(&mut options.seccomp, self.daemon.seccomp);
        fill(&mut options.state_dir, self.daemon.state_directory.clone());
        if options.dns.is_empty() {
            options.dns.clone_from(dns);
        }
        fill_default(&mut options.mode, mode.as_ref().map(|mode| mode.0));
        fill_default(&mut options.acd, *acd);
        fill_default(&mut options.congestion, self.tcp.congestion.as_ref().map(|algorithm| algorithm.0));
        options.ecn |= self.tcp.ecn;
        options
    }

    /// The addresses of another configuration that this one has not: those that are named.
    pub fn addresses_not_in(&self, other: &Self) -> Vec<Ipv4Addr> {
        let theirs = other.named_addresses();
        self.named_addresses().into_iter().filter(|address| !theirs.contains(address)).collect()
    }

    fn named_addresses(&self) -> Vec<Ipv4Addr> {
        let named = |choice: &Spanned<Text<AddressChoice>>| match choice.get_ref().0 {
            AddressChoice::Given { address, .. } => Some(address),
            AddressChoice::Auto => None,
        };
        self.network.addresses.iter().filter_map(named).collect()
    }

    /// How an address is to be claimed.
    pub fn choice(&self, wanted: Ipv4Addr) -> AddressChoice {
        let mut choices = self.network.addresses.iter().map(|choice| choice.get_ref().0);
        let is_wanted = |choice: &AddressChoice| matches!(choice, AddressChoice::Given { address, .. } if *address == wanted);
        choices.find(is_wanted).unwrap_or(AddressChoice::Given { address: wanted, prefix_len: None })
    }

    /// Forgets an address, so that the next reload finds it new.
    pub fn forget(&mut self, unwanted: Ipv4Addr) {
        let is_other = |choice: &Spanned<Text<AddressChoice>>| !matches!(choice.get_ref().0, AddressChoice::Given { address, .. } if address == unwanted);
        self.network.addresses.retain(is_other);
    }

    /// The network but for its addresses, and how many of those are ours to choose.
    fn fixed_network(&self) -> (Network, usize) {
        let chosen = self.network.addresses.len() - self.named_addresses().len();
        (Network { addresses: Vec::new(), ..self.network.clone() }, chosen)
    }

    /// This one, as far as it takes a restart to change it, and for the rest the new one.
    #[must_use]
    pub fn reloaded_as(self, new: Self) -> Self {
        let Self { network, tcp, daemon, control, .. } = self;
        let daemon = Process { grace: new.daemon.grace, ..daemon };
        let control = Control { socket: control.socket, mode: control.mode, ..new.control };
        let network = Network { addresses: new.network.addresses, ..network };
        Self { network, tcp, daemon, control, ..new }
    }

    /// What of another configuration can't be changed while the daemon runs, by section.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let changed = [
            ("[network]", self.fixed_network() != new.fixed_network()),
            ("[tcp]", self.tcp != new.tcp),
            ("[daemon] user", self.daemon.user != new.daemon.user),
            ("[daemon] seccomp", self.daemon.seccomp != new.daemon.seccomp),
            ("[daemon] state-directory", self.daemon.state_directory != new.daemon.state_directory),
            ("[daemon] log", self.daemon.log != new.daemon.log),
            ("[control] socket", self.control.socket != new.control.socket),
            ("[control] mode", self.control.mode != new.control.mode),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}

/// The command line comes first.
fn fill<T>(option: &mut Option<T>, file: Option<T>) {
    if option.is_none() {
        *option = file;
    }
}

/// As [`fill`], where an option that is not given has a value as well.
fn fill_default<T: Default + PartialEq>(option: &mut T, file: Option<T>) {
    if let Some(value) = file
        && *option == T::default()
    {
        *option = value;
    }
}

/// A value that is written as text, as on the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: fmt::Debug> fmt::Debug for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.0..=MAX_GRACE).contains(&number) {
        Ok(Duration::from_secs_f64(number))
    } else {
        Err(serde::de::Error::custom(format!("{number} is not within 0 to {MAX_GRACE} seconds")))
    }
}

/// Modes of files are written as strings, since numbers would be decimal.
fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| {
        serde::de::Error::custom(format!("'{text}' is no mode of a file: three octal digits, such as 660"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("x.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_a_configuration_and_so_is_the_example() {
        let empty = parse("").expect("parses");
        assert_eq!(empty.control.socket, Path::new(control::DEFAULT_PATH));
        let example = include_str!("../../../../packaging/xstack.toml");
        let config = parse(example).expect("parses");
        assert!(!config.forward.is_empty());
        // What the example has as comments are the keys that there are.
        let all: String =
            example.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
        parse(&all).expect("every key that the example names exists");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_the_reason() {
        let forward = |from: &str| format!("[[forward]]\nfrom = \"{from}\"\nto = \"8080\"\n");
        let overlap = forward("80") + &forward("10.0.0.7:80");
        let proxies = forward("kernel:1080").replace("8080", "10.0.0.9:80") + "[[proxy]]\n";
        let elsewhere = "[network]\naddresses = [\"10.0.0.7\"]\n".to_owned() + &forward("10.0.0.8:80");
        let twice = "[network]\naddresses = [\"10.0.0.7\",\n  \"auto\", \"10.0.0.7/24\"]";
        for (text, says) in [
            ("[network\n", "x.toml:1:9: "),
            ("\n[network]\ninterface = eth1\n", "x.toml:3:13: "),
            ("[network]\ninterfaces = 'eth1'", "x.toml:2:1: unknown field `interfaces`"),
            ("[network]\ninterfaces = 'eth1'", "did you mean `interface`?"),
            ("[nonsense]\n", "unknown field `nonsense`"),
            ("[daemon]\ngrace = -1", "x.toml:2:9: -1 is not within 0 to 3600"),
            ("[daemon]\ngrace = 'soon'", "x.toml:2:9: invalid type"),
            ("[network]\ngateway = '10.0.0'", "x.toml:2:11: "),
            ("[network]\naddresses = ['10.0.0.300']", "x.toml:2:13: '10.0.0.300' is not an IPv4 address"),
            ("[network]\nmode = 'magic'", "there is no mode `magic`"),
            ("[network]\nvlan = 4095", "x.toml:2:8: 4095 is no VLAN"),
            ("[tcp]\ncongestion = 'hope'", "x.toml:2:14: "),
            ("[control]\nmode = 660", "x.toml:2:8: "),
            ("[control]\nallow-users = [\"nobody-of-that-name\"]", "x.toml:2:16: there is no user"),
            ("[[forward]]\nfrom = '80'", "missing field `to`"),
            (&overlap, "x.toml:4:1: ours:10.0.0.7:80 overlaps ours:0.0.0.0:80 in line 1"),
            (&proxies, "x.toml:4:1: kernel:127.0.0.1:1080 overlaps kernel:0.0.0.0:1080 in line 1"),
            ("[[proxy]]\nlisten = ['ours:1080']", "can be reached by others"),
            ("[[proxy]]\nlisten = ['x']", "x.toml:1:1: "),
            (&elsewhere, "x.toml:3:1: 10.0.0.8 is not in [network] addresses"),
            (twice, "x.toml:3:11: 10.0.0.7 is listed twice, first in line 2"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
        let missing = Config::read(Path::new("/nonexistent/x.toml")).expect_err("not there").to_string();
        assert!(missing.starts_with("/nonexistent/x.toml: cannot be read: "), "{missing}");
    }

    #[test]
    fn the_command_line_comes_first() {
        let config = parse("[network]\ninterface = 'a'\nmode = 'generic'\ndns = ['10.0.0.1']\nqueue = 1")
            .expect("parses");
        let given = |words: &[&str]| {
            let words = ["xstack", "daemon"].iter().chain(words).map(std::ffi::OsString::from);
            crate::cli::parse(words).expect("parses").global
        };
        let options = config.options(&given(&["--interface", "b"]));
        assert_eq!(options.interface.as_deref(), Some("b"));
        assert_eq!((options.queue, options.mode, options.dns.len()), (Some(1), Mode::Generic, 1));
        assert_eq!(config.options(&given(&["--mode", "native"])).mode, Mode::Native);
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let old = parse("[network]\ninterface = 'a'").expect("parses");
        assert!(old.needs_restart(&old).is_empty());
        let new = parse("[network]\ninterface = 'b'\n[control]\nmode = '600'\n[daemon]\ngrace = 1")
            .expect("parses");
        assert_eq!(old.needs_restart(&new), ["[network]", "[control] mode"]);
        let after = old.clone().reloaded_as(new.clone());
        assert_eq!(
            after.needs_restart(&new),
            ["[network]", "[control] mode"],
            "it is said again the next time"
        );
        assert_eq!(after.daemon.grace, Duration::from_secs(1));
        let addresses = |list: &str| parse(&format!("[network]\naddresses = [{list}]")).expect("parses");
        let (two, other) = (addresses("'10.0.0.1', '10.0.0.2/24'"), addresses("'10.0.0.2', '10.0.0.3'"));
        assert!(two.needs_restart(&other).is_empty(), "addresses come and go");
        assert_eq!(other.addresses_not_in(&two), [Ipv4Addr::new(10, 0, 0, 3)]);
        assert_eq!(two.addresses_not_in(&other), [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(
            two.needs_restart(&addresses("'auto'")),
            ["[network]"],
            "who would choose which is to go?"
        );
        // Where something stands in the file makes no difference.
        let moved = parse("\n\n[network]\naddresses = ['auto']\ninterface = 'a'").expect("parses");
        let same = parse("[network]\ninterface = 'a'\naddresses = ['auto']").expect("parses");
        assert!(moved.needs_restart(&same).is_empty());
    }
}
