//! `xstack status`: what a running daemon does, and what `xstack attach` left.

use std::{fmt::Write as _, io, path::PathBuf, time::SystemTime};

use clap::Args;
use serde::Serialize;

use super::{
    ask,
    client::Client,
    view::{Count, Hello, Neighbour, Network, Relay, Status},
};
use crate::{
    cli::{
        attach::{self, view::Attachment},
        console::{Console, printable},
        error::{Exit, Failure},
    },
    device::xdp::program::{self, ProgramError, inspect},
};

/// What `xstack status` can be told.
#[derive(Args, Clone, Debug)]
pub struct StatusOptions {
    /// Show only what `xstack attach` left on this interface
    #[arg(id = "IFACE", value_name = "IFACE")]
    pub interface: Option<String>,

    /// Print it as JSON
    #[arg(long)]
    pub json: bool,

    /// Where the daemon is spoken to.
    #[command(flatten)]
    pub socket: SocketOption,
}

/// Where the daemon is spoken to.
#[derive(Args, Clone, Debug)]
pub struct SocketOption {
    /// Ask the daemon at this control socket
    #[arg(long = "socket", env = "XSTACK_CONTROL", hide_env_values = true, value_name = "PATH",
          default_value = super::DEFAULT_PATH)]
    pub path: PathBuf,
}

/// Asks and prints.
pub async fn run(options: StatusOptions, mut console: Console, stop: impl Future<Output = Exit>) -> Exit {
    let work = async {
        let told = tell(&options).await?;
        super::print(&mut console, told.as_bytes()).await?;
        super::flush(&mut console).await
    };
    let result: Result<(), Failure> = tokio::select! {
        exit = stop => return exit,
        result = work => result,
    };
    super::conclude(result, &console)
}

async fn tell(options: &StatusOptions) -> Result<String, Failure> {
    if let Some(interface) = &options.interface {
        let attachment = attachment_of(interface)?;
        return Ok(Told { daemon: None, attachments: Some(vec![attachment]) }.print(options.json));
    }
    let client = Client::new(&options.socket.path);
    let daemon: Result<Status, Failure> = ask(client.get("/v1/status")).await;
    // Whoever may not look at them is told of the daemon alone.
    let attachments = match inspect::all() {
        Ok(all) => Some(all.into_iter().map(|(interface, found)| view_of(interface, found)).collect()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => {
            return Err(Failure::Interface(format!("cannot look at {}: {error}", program::ROOT)));
        }
    };
    let daemon = match daemon {
        Ok(daemon) => Some(daemon),
        // Servers need no daemon.
        Err(_) if attachments.as_ref().is_some_and(|all: &Vec<_>| !all.is_empty()) => None,
        Err(failure) => return Err(failure),
    };
    Ok(Told { daemon, attachments }.print(options.json))
}

fn attachment_of(interface: &str) -> Result<Attachment, Failure> {
    if !attach::is_name(interface) {
        return Err(Failure::Usage(format!("'{interface}' can't be an interface's name")));
    }
    let kept = program::directory(interface);
    let found = inspect::inspect(interface, None).map_err(|error| {
        Failure::Interface(match std::fs::symlink_metadata(&kept) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                format!("nothing is attached to {interface} to stay: `xstack attach {interface}` does that")
            }
            _ => error.to_string(),
        })
    })?;
    Ok(view_of(interface.to_owned(), Ok(found)))
}

fn view_of(interface: String, found: Result<inspect::Attachment, ProgramError>) -> Attachment {
    let pins = program::directory(&interface).display().to_string();
    Attachment::new(interface, pins, found)
}

/// All that is told.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    daemon: Option<Status>,
    /// None if we may not look.
    attachments: Option<Vec<Attachment>>,
}

impl Told {
    fn print(&self, json: bool) -> String {
        if json {
            return serde_json::to_string(self).map(|text| text + "\n").unwrap_or_default();
        }
        let mut text = self.daemon.as_ref().map(Status::to_text).unwrap_or_default();
        for attachment in self.attachments.iter().flatten() {
            // Writing to a String does not fail.
            let _ = attachment.write(SystemTime::now(), &mut text);
        }
        // What it tells has been others' words: names of interfaces, paths, processes.
        text.lines().map(|line| printable(line) + "\n").collect()
    }
}

impl Status {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, f: &mut String) -> std::fmt::Result {
        let Self { hello: Hello { version, pid, .. }, configuration, .. } = self;
        writeln!(f, "xstack {version}, pid {pid}, up for {}", duration(self.uptime_seconds))?;
        writeln!(f, "configuration  {configuration}")?;
        self.networks.iter().try_for_each(|network| network.write(f))?;
        for relay in &self.relays {
            relay.write(f)?;
        }
        writeln!(f, "connections    {}", listed(&self.connections))?;
        writeln!(f, "control        {} connections of clients", self.control_sessions)?;
        let counters = [
            ("dropped", &self.drops),
            ("followers", &self.followers),
            ("device", &self.device),
            ("program", &self.program),
        ];
        for (name, counts) in counters {
            writeln!(f, "{name:<14} {}", listed(counts))?;
        }
        if let Some(advice) = &self.advice {
            writeln!(f, "advice         {advice}")?;
        }
        Ok(())
    }
}

impl Network {
    fn write(&self, f: &mut String) -> std::fmt::Result {
        writeln!(f, "interface      {}", self.interface)?;
        for address in &self.addresses {
            writeln!(f, "address        {}  {}", address.address, address.state)?;
        }
        for shard in &self.shards {
            let used = shard.frames.saturating_sub(shard.free_frames);
            writeln!(f, "queue          {}, {used} of {} frames in use", shard.device, shard.frames)?;
            if let Some(why) = &shard.stopped {
                writeln!(f, "               {why}")?;
            }
        }
        for Neighbour { address, mac, state } in &self.neighbours {
            writeln!(f, "neighbour      {address}  {}  {state}", mac.as_deref().unwrap_or("-"))?;
        }
        Ok(())
    }
}

impl Relay {
    fn write(&self, f: &mut String) -> std::fmt::Result {
        let Self { kind, to, active, accepted, failed, refused, to_target, to_client, .. } = self;
        let arrow = if to.is_empty() { "" } else { " -> " };
        writeln!(f, "{kind:<14} {}{arrow}{to}", self.listening.join(" "))?;
        writeln!(
            f,
            "               {active} connections, {accepted} accepted, {failed} failed, {refused} refused, {to_target} bytes \
             to targets, {to_client} to clients"
        )
    }
}

/// Those that are not zero.
pub fn listed(counts: &[Count]) -> String {
    let told: Vec<_> = counts
        .iter()
        .filter(|count| count.count > 0)
        .map(|Count { name, count }| format!("{name} {count}"))
        .collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

/// A duration as uptime has it.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (3_660.0, "1 h 1 min"),
            (90_060.0, "1 d 1 h 1 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn followers_are_told_by_daemons_that_count_them() {
        let text = |more: &str| {
            let status = format!(
                r#"{{"api": 1, "version": "0", "pid": 1, "uptime_seconds": 1, "configuration": "", "networks": [], "relays": [],
                "connections": [], "control_sessions": 0, "drops": [], "device": [], "program": [], "advice": null{more}}}"#
            );
            serde_json::from_str::<Status>(&status).expect("a status").to_text()
        };
        assert!(text("").contains("\nfollowers      none\n"));
        let told = r#", "followers": [{"name": "received", "count": 7}, {"name": "sent", "count": 0}]"#;
        assert!(text(told).contains("\nfollowers      received 7\n"));
    }

    #[test]
    fn counts_that_are_zero_are_not_told() {
        assert_eq!(listed(&[Count::new("a", 0), Count::new("b", 2)]), "b 2");
        assert_eq!(listed(&[Count::new("a", 0)]), "none");
    }
}
