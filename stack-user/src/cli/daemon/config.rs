//! The daemon's configuration: a TOML file that is judged as a whole before anything is touched.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer};
use toml::Spanned;
use tracing::level_filters::LevelFilter;

use super::{
    networks::{Network, Networks},
    position::{ConfigError, Source},
};
use crate::{
    cli::{
        control::{
            self,
            access::{Access, NameOrId},
        },
        error::Failure,
        forward,
        global::GlobalOptions,
        privileges::{Filter, UserSpec},
        proxy,
        relay::{Limits, Listen, Side},
    },
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
    /// Where the stack runs.
    #[serde(rename = "network")]
    pub networks: Networks,
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
        self.networks.check(source)?;
        self.access(source)?;
        self.check_places(source)
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
                && !self.networks.hold(*ip)
            {
                let text =
                    format!("{ip} is not in [network] addresses: listen on one of those, or on 0.0.0.0");
                return Err(source.at(span.clone(), text));
            }
        }
        Ok(())
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

    /// The options that bring up each network: what the command line says, and where it does not, what the file does.
    ///
    /// # Errors
    /// When the command line says of one network what can't be said of several.
    pub fn options(&self, given: &GlobalOptions) -> Result<Vec<GlobalOptions>, Failure> {
        let of_one = given.names_one_network().filter(|_| self.networks.count() > 1);
        if let Some(option) = of_one {
            let count = self.networks.count();
            let text =
                format!("{option} (or its variable) is for one network, and the configuration has {count}");
            return Err(Failure::Usage(text));
        }
        let options = |network: &Network| {
            let mut options = given.clone();
            network.fill(&mut options);
            self.fill_common(&mut options);
            options
        };
        Ok(self.networks.iter().map(options).collect())
    }

    fn fill_common(&self, options: &mut GlobalOptions) {
        fill(&mut options.user, self.daemon.user.as_ref().map(|user| user.0.clone()));
        fill_default(&mut options.seccomp, self.daemon.seccomp);
        fill(&mut options.state_dir, self.daemon.state_directory.clone());
        fill_default(&mut options.congestion, self.tcp.congestion.as_ref().map(|algorithm| algorithm.0));
        options.ecn |= self.tcp.ecn;
    }

    /// This one, as far as it takes a restart to change it, and for the rest the new one.
    #[must_use]
    pub fn reloaded_as(self, new: Self) -> Self {
        let Self { networks, tcp, daemon, control, .. } = self;
        let daemon = Process { grace: new.daemon.grace, ..daemon };
        let control = Control { socket: control.socket, mode: control.mode, ..new.control };
        let networks = networks.with_addresses_of(&new.networks);
        Self { networks, tcp, daemon, control, ..new }
    }

    /// What of another configuration can't be changed while the daemon runs, by section.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let changed = [
            ("[network]", self.networks.differ_in_more_than_addresses(&new.networks)),
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
pub(super) fn fill<T>(option: &mut Option<T>, file: Option<T>) {
    if option.is_none() {
        *option = file;
    }
}

/// As [`fill`], where an option that is not given has a value as well.
pub(super) fn fill_default<T: Default + PartialEq>(option: &mut T, file: Option<T>) {
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
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{api::AddressChoice, cli::daemon::networks::Moves, device::xdp::Mode};

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
        let network = |interface: &str, address: &str| {
            format!("[[network]]\ninterface = '{interface}'\naddresses = ['{address}']\n")
        };
        let (one, two) = (network("eth1", "10.0.0.7"), network("eth2", "10.1.0.7"));
        let same_interface = one.clone() + &two + &network("eth1", "10.2.0.7");
        let same_address = one.clone() + &network("eth2", "10.0.0.7/16");
        let nameless = one.clone() + "\n[[network]]\naddresses = ['10.1.0.7']\n";
        let table_and_more = one.replace("[[network]]", "[network]") + &two;
        let no_ones = one.clone() + &two + &forward("10.2.0.7:80");
        let unknown_in_second = one.clone() + &two + "gatway = '10.1.0.1'\n";
        let vlan_in_second = one.clone() + &two + "vlan = 0\n";
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
            ("[network]\nbusy-poll = 0", "x.toml:2:13: 0 is no time to poll for: 1 to 1000000"),
            ("[tcp]\ncongestion = 'hope'", "x.toml:2:14: "),
            ("[control]\nmode = 660", "x.toml:2:8: "),
            ("[control]\nallow-users = [\"nobody-of-that-name\"]", "x.toml:2:16: there is no user"),
            ("[[forward]]\nfrom = '80'", "missing field `to`"),
            (&overlap, "x.toml:4:1: ours:10.0.0.7:80 overlaps ours:0.0.0.0:80 in line 1"),
            (&proxies, "x.toml:4:1: kernel:127.0.0.1:1080 overlaps kernel:0.0.0.0:1080 in line 1"),
            ("[[proxy]]\nlisten = ['ours:1080']", "can be reached by others"),
            ("[[proxy]]\nlisten = ['x']", "x.toml:1:1: "),
            (&elsewhere, "x.toml:3:1: 10.0.0.8 is not in [network] addresses"),
            (&same_interface, "x.toml:8:13: eth1 has a network already, in line 2"),
            (&same_address, "x.toml:6:14: 10.0.0.7 is listed twice, first in line 3"),
            (&nameless, "x.toml:5:1: where there are several networks, each says its interface"),
            (&table_and_more, "x.toml:4:"),
            (&no_ones, "x.toml:7:1: 10.2.0.7 is not in [network] addresses"),
            (&unknown_in_second, "x.toml:7:1: unknown field `gatway`"),
            (&unknown_in_second, "did you mean `gateway`?"),
            (&vlan_in_second, "x.toml:7:8: 0 is no VLAN"),
            ("network = []", "x.toml:1:11: there is no network in it"),
            ("network = 'eth1'", "x.toml:1:11: invalid type"),
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
        let only = |words: &[&str]| config.options(&given(words)).expect("one network").remove(0);
        let options = only(&["--interface", "b"]);
        assert_eq!(options.interface.as_deref(), Some("b"));
        assert_eq!((options.queue, options.mode, options.dns.len()), (Some(1), Mode::Generic, 1));
        assert_eq!(only(&["--mode", "native"]).mode, Mode::Native);
    }

    #[test]
    fn each_network_has_its_own_options_and_all_have_the_common_ones() {
        let config = parse(
            "[[network]]\ninterface = 'a'\ngateway = '10.0.0.1'\n[[network]]\ninterface = 'b'\nvlan = 7\n\
             addresses = ['10.1.0.7', 'auto']\n[tcp]\necn = true\n[[forward]]\nfrom = '10.9.9.9:80'\nto = '80'",
        )
        .expect("one of the networks chooses an address, which could be any");
        let given = |words: &[&str]| {
            let words = ["xstack", "daemon"].iter().chain(words).map(std::ffi::OsString::from);
            config.options(&crate::cli::parse(words).expect("parses").global)
        };
        let options = given(&["--mode", "generic"]).expect("for both");
        let told: Vec<_> =
            options.iter().map(|o| (o.interface.as_deref(), o.gateway, o.vlan, o.address.len())).collect();
        let router = Some(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(told, [(Some("a"), router, None, 0), (Some("b"), None, Some(7), 2)]);
        assert!(options.iter().all(|options| options.ecn && options.mode == Mode::Generic));
        for words in [
            &["--interface", "c"][..],
            &["--address", "10.0.0.7"],
            &["--gateway", "10.0.0.1"],
            &["--queue", "0"],
            &["--vlan", "7"],
            &["--program", "pinned:/x"],
            &["--pcap", "x"],
        ] {
            let error = given(words).expect_err("which of them?").line();
            assert!(error.contains(words[0]) && error.contains("the configuration has 2"), "{error}");
        }
    }

    #[test]
    fn addresses_come_and_go_on_their_own_interface() {
        let networks = |list: &[(&str, &str)]| {
            let text: String = list
                .iter()
                .map(|(name, list)| format!("[[network]]\ninterface = '{name}'\naddresses = [{list}]\n"))
                .collect();
            parse(&text).expect("parses")
        };
        let given = |address: &str| address.parse::<AddressChoice>().expect("an address");
        let ip = |address: &str| address.parse::<Ipv4Addr>().expect("an address");
        let old = networks(&[("a", "'10.0.0.1', '10.0.0.2'"), ("b", "'10.1.0.1'")]);
        let new = networks(&[("a", "'10.0.0.2'"), ("b", "'10.1.0.1', '10.1.0.2/24'")]);
        assert!(old.needs_restart(&new).is_empty());
        let moves = old.networks.moves(&new.networks);
        assert_eq!(moves[0], Moves { come: vec![], go: vec![ip("10.0.0.1")] });
        assert_eq!(moves[1], Moves { come: vec![given("10.1.0.2/24")], go: vec![] });
        let mut after = old.clone().reloaded_as(new.clone());
        assert_eq!(after.networks, new.networks);
        after.networks.forget(given("10.1.0.2/24"));
        assert_eq!(after.networks.moves(&new.networks)[1].come, [given("10.1.0.2/24")], "it is tried again");

        // Interfaces come and go by a restart only, and their addresses with them.
        for other in [networks(&[("b", "'10.1.0.2'")]), networks(&[("b", "'10.1.0.2'"), ("c", "'10.2.0.1'")])]
        {
            assert_eq!(old.needs_restart(&other), ["[network]"]);
            let moves = old.networks.moves(&other.networks);
            assert_eq!(moves[0], Moves::default());
            assert_eq!(moves[1], Moves { come: vec![given("10.1.0.2")], go: vec![ip("10.1.0.1")] });
            let after = old.clone().reloaded_as(other.clone());
            assert_eq!(after.networks.count(), 2);
            assert_eq!(after.needs_restart(&other), ["[network]"], "it is said again the next time");
        }
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
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        let come = AddressChoice::Given { address: address(3), prefix_len: None };
        let moves = Moves { come: vec![come], go: vec![address(1)] };
        assert_eq!(two.networks.moves(&other.networks), [moves]);
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
