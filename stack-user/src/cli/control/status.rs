//! `xstack status`: what a running daemon does.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;

use super::{
    ask,
    client::Client,
    view::{Count, Hello, Neighbour, Network, Relay, Status},
};
use crate::cli::{
    console::{Console, printable},
    error::{Exit, Failure},
};

/// What `xstack status` can be told.
#[derive(Args, Clone, Debug)]
pub struct StatusOptions {
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
    let client = Client::new(&options.socket.path);
    let work = async {
        let status: Status = ask(client.get("/v1/status")).await?;
        let text = if options.json {
            serde_json::to_string(&status).map(|text| text + "\n").unwrap_or_default()
        } else {
            // What it tells has been others' words: names of interfaces, paths.
            status.to_text().lines().map(|line| printable(line) + "\n").collect()
        };
        super::print(&mut console, text.as_bytes()).await?;
        super::flush(&mut console).await
    };
    let result: Result<(), Failure> = tokio::select! {
        exit = stop => return exit,
        result = work => result,
    };
    super::conclude(result, &console)
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
        for (name, counts) in [("dropped", &self.drops), ("device", &self.device), ("program", &self.program)]
        {
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
fn listed(counts: &[Count]) -> String {
    let told: Vec<_> = counts
        .iter()
        .filter(|count| count.count > 0)
        .map(|Count { name, count }| format!("{name} {count}"))
        .collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

/// A duration as uptime has it.
fn duration(seconds: f64) -> String {
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
    fn counts_that_are_zero_are_not_told() {
        assert_eq!(listed(&[Count::new("a", 0), Count::new("b", 2)]), "b 2");
        assert_eq!(listed(&[Count::new("a", 0)]), "none");
    }
}
