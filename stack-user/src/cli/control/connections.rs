//! `xstack connections`: the sockets of a running daemon, a line each, in the manner of ss.

use std::fmt::Write as _;

use clap::Args;

use super::{
    ask,
    client::Client,
    filter::{Filter, Place, parse_state},
    status::SocketOption,
    view::{Socket, TcpInfo},
};
use crate::cli::{
    console::Console,
    error::{Exit, Failure},
};

/// Bytes that are printed at once. Fewer, and a long list costs more system calls.
const BATCH: usize = 32 * 1024;

/// What `xstack connections` can be told.
#[derive(Args, Clone, Debug)]
pub struct ConnectionsOptions {
    /// Show listeners, and no connections
    #[arg(short, long, visible_alias = "listen")]
    pub listening: bool,

    /// Show everything: connections, those in TIME-WAIT, listeners
    #[arg(short, long)]
    pub all: bool,

    /// Show what TCP knows of each connection: round trips, windows, retransmissions
    #[arg(short, long)]
    pub info: bool,

    /// Show those in this state only, as ss names it: established, time-wait, listen... Repeat for several
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = parse_state)]
    pub state: Vec<String>,

    /// Show those with this port at either end only
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Show those with this end of ours only
    #[arg(long, value_name = "ADDR|ADDR:PORT|:PORT")]
    pub local: Option<Place>,

    /// Show those with this peer only
    #[arg(long, value_name = "ADDR|ADDR:PORT|:PORT")]
    pub peer: Option<Place>,

    /// Print no header
    #[arg(short = 'H', long)]
    pub no_header: bool,

    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Where the daemon is spoken to.
    #[command(flatten)]
    pub socket: SocketOption,
}

/// Asks, and prints what comes as it comes.
pub async fn run(
    options: ConnectionsOptions,
    mut console: Console,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let result = tokio::select! {
        exit = stop => return exit,
        result = list(&options, &mut console) => result,
    };
    super::conclude(result, &console)
}

async fn list(options: &ConnectionsOptions, console: &mut Console) -> Result<(), Failure> {
    let filter = Filter {
        listening: options.listening,
        all: options.all,
        info: options.info || options.json,
        states: options.state.clone(),
        port: options.port,
        local: options.local,
        peer: options.peer,
    };
    let client = Client::new(&options.socket.path);
    let mut lines = ask(client.lines(&format!("/v1/connections?{}", filter.to_query()))).await?;
    let mut batch = String::new();
    if !options.no_header && !options.json {
        batch.push_str(&row("State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"));
    }
    while let Some(line) = ask(lines.next()).await? {
        let socket: Socket = serde_json::from_slice(line)
            .map_err(|error| Failure::Control(format!("the daemon's answer makes no sense: {error}")))?;
        if options.json {
            batch.push_str(&serde_json::to_string(&socket).unwrap_or_default());
            batch.push('\n');
        } else {
            batch.push_str(&socket.to_text());
        }
        if batch.len() >= BATCH {
            super::print(console, batch.as_bytes()).await?;
            batch.clear();
        }
    }
    super::print(console, batch.as_bytes()).await?;
    super::flush(console).await
}

fn row(state: &str, recv_q: &str, send_q: &str, local: &str, peer: &str) -> String {
    format!("{state:<11}{recv_q:<8}{send_q:<8}{local:>22} {peer:>22}\n")
}

impl Socket {
    /// As ss prints it, and what TCP knows in a second line.
    fn to_text(&self) -> String {
        let peer = self.peer.map_or_else(|| "0.0.0.0:*".to_owned(), |peer| peer.to_string());
        let (recv_q, send_q) = (self.recv_q.to_string(), self.send_q.to_string());
        let mut text = row(&self.state, &recv_q, &send_q, &self.local.to_string(), &peer);
        if let Some(info) = &self.info {
            // Writing to a String does not fail.
            let _ = info.write(&mut text);
        }
        text
    }
}

impl TcpInfo {
    /// In the words of ss, as far as it has them.
    fn write(&self, f: &mut String) -> std::fmt::Result {
        f.push('\t');
        let flags = [(self.timestamps, "ts "), (self.sack, "sack "), (self.ecn, "ecn ")];
        flags.iter().filter(|(is_on, _)| *is_on).for_each(|(_, name)| f.push_str(name));
        write!(
            f,
            "{} wscale:{},{} rto:{:.0}",
            self.congestion, self.window_scale.0, self.window_scale.1, self.rto
        )?;
        if let (Some(rtt), Some(rttvar)) = (self.rtt, self.rttvar) {
            write!(f, " rtt:{rtt:.3}/{rttvar:.3}")?;
        }
        // ss counts the windows in segments.
        let segments = |bytes: usize| bytes / self.mss.max(1);
        write!(f, " mss:{} pmtu:{} cwnd:{}", self.mss, self.pmtu, segments(self.cwnd))?;
        if let Some(ssthresh) = self.ssthresh {
            write!(f, " ssthresh:{}", segments(ssthresh))?;
        }
        write!(f, " bytes_acked:{} bytes_received:{}", self.bytes_acked, self.bytes_received)?;
        write!(f, " segs_out:{} segs_in:{}", self.segments_sent, self.segments_received)?;
        for (name, rate) in [("pacing_rate", self.pacing_rate), ("delivery_rate", self.delivery_rate)] {
            if let Some(rate) = rate {
                write!(f, " {name} {}bps", rate.saturating_mul(8))?;
            }
        }
        let counts = [
            ("unacked", segments(self.in_flight) as u64),
            ("retrans", self.retransmissions),
            ("lost", segments(self.lost) as u64),
            ("sacked", segments(self.sacked) as u64),
            ("notsent", self.unsent as u64),
        ];
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, " {name}:{count}")?;
        }
        write!(f, " rcv_wnd:{} snd_wnd:{}", self.receive_window, self.send_window)?;
        if let Some(min_rtt) = self.min_rtt {
            write!(f, " minrtt:{min_rtt:.3}")?;
        }
        f.push('\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_those_of_ss() {
        let socket = Socket {
            state: "ESTAB".to_owned(),
            recv_q: 0,
            send_q: 17,
            local: "10.0.0.7:80".parse().expect("ok"),
            peer: Some("10.0.0.9:40000".parse().expect("ok")),
            info: None,
        };
        let fields: Vec<_> = socket.to_text().split_whitespace().map(str::to_owned).collect();
        assert_eq!(fields, ["ESTAB", "0", "17", "10.0.0.7:80", "10.0.0.9:40000"]);
        let listener = Socket { state: "LISTEN".to_owned(), peer: None, ..socket };
        assert!(listener.to_text().ends_with(" 0.0.0.0:*\n"));
    }
}
