//! Whether `xstack curl` uses a running daemon's network or brings up one of its own.

use std::path::PathBuf;

use clap::Args;

use super::{
    ask,
    client::{Client, ControlError, DaemonNetwork},
    view::Hello,
};
use crate::{
    cli::{error::Failure, global::GlobalOptions},
    telemetry::STORY,
};

/// What `xstack curl` can be told about daemons.
#[derive(Args, Clone, Debug)]
pub struct DaemonOptions {
    /// Connect through the running daemon, which needs no privileges [default: if there is one, and no option names a
    /// network]
    #[arg(long, conflicts_with = "no_daemon")]
    pub daemon: bool,

    /// Bring up a stack of our own, even if a daemon runs
    #[arg(long)]
    pub no_daemon: bool,

    /// Where the daemon is spoken to
    #[arg(long, env = "XSTACK_CONTROL", hide_env_values = true, value_name = "PATH",
          default_value = super::DEFAULT_PATH)]
    pub control_socket: PathBuf,

    /// Look for a daemon though nobody asked for one: not before the command that a person typed says so.
    #[arg(skip)]
    pub automatic: bool,
}

impl DaemonOptions {
    /// The daemon's network, if that is the one to use.
    ///
    /// # Errors
    /// When a daemon was asked for, and there is none that we may use.
    pub async fn choose(&self, global: &GlobalOptions) -> Result<Option<DaemonNetwork>, Failure> {
        if self.no_daemon || !(self.daemon || self.automatic && global.names_no_network()) {
            return Ok(None);
        }
        if self.daemon && !global.names_no_network() {
            return Err(Failure::Usage(
                "--daemon means the daemon's network, so that no option or variable can name another"
                    .to_owned(),
            ));
        }
        let client = Client::new(&self.control_socket);
        let hello = client.get::<Hello>("/v1/hello");
        let socket = self.control_socket.display();
        if self.daemon {
            let Hello { pid, .. } = ask(hello).await?;
            tracing::info!(target: STORY, "using the network of the daemon at {socket} (pid {pid})");
            return Ok(Some(DaemonNetwork::new(client)));
        }
        match hello.await {
            Ok(Hello { pid, .. }) => {
                let without = "--no-daemon does without";
                tracing::info!(target: STORY, "using the network of the daemon at {socket} (pid {pid}); {without}");
                Ok(Some(DaemonNetwork::new(client)))
            }
            Err(ControlError::Refused { message, .. }) => {
                tracing::info!(target: STORY, "not using the daemon at {socket}: {message}");
                Ok(None)
            }
            // Nobody asked for a daemon, and there is none.
            Err(_) => Ok(None),
        }
    }
}
