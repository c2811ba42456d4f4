//! `xstack forward FROM TO…`: whoever connects to FROM is connected to TO, across the line between our stack and the
//! kernel's, or along our side of it.

mod proxy_protocol;
mod serve;
mod spec;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;

use self::serve::Forward;
pub use self::spec::{ProxyProtocol, Spec};
use super::console::Console;
use super::error::{Exit, Failure};
use super::network::Network;
use super::relay::command::{self, Started};
use super::relay::endpoint::{Overlap, check_disjoint};
use super::relay::handle::Tally;
use super::relay::{Dialer, Handle, Limits, RelayOptions, StartError};
use super::service::Service;

/// What `xstack forward` can be told.
#[derive(Args, Clone, Debug)]
pub struct ForwardOptions {
    /// Where to listen and where to go on to, in pairs: FROM TO [FROM TO]...
    ///
    /// FROM is [ours:|kernel:][ADDR:]PORT or unix:PATH, and on our stack unless it says otherwise; TO is
    /// [ours:|kernel:][HOST:]PORT or unix:PATH, and on the other side unless it says otherwise. PORT may be a range, A-B.
    #[arg(value_name = "FROM TO", required = true, num_args = 2..)]
    pub endpoints: Vec<String>,

    /// Tell the target where each connection came from, by HAProxy's PROXY protocol
    #[arg(long, value_name = "VERSION", value_enum)]
    pub proxy_protocol: Option<ProxyProtocol>,

    /// Limits, and how to stop.
    #[command(flatten)]
    pub relay: RelayOptions,
}

impl ForwardOptions {
    /// The forwards.
    ///
    /// # Errors
    /// [`Failure::Usage`] with what is wrong.
    pub fn specs(&self) -> Result<Vec<Spec>, Failure> {
        let mut specs = Vec::new();
        for pair in self.endpoints.chunks(2) {
            let [from, to] = pair else {
                let alone = &pair[0];
                return Err(Failure::Usage(format!("where to? '{alone}' is a FROM without its TO")));
            };
            let spec = Spec::new(from, to).map_err(Failure::Usage)?;
            specs.push(Spec { proxy_protocol: self.proxy_protocol, ..spec });
        }
        check(&specs).map_err(|overlap| Failure::Usage(overlap.to_string()))?;
        Ok(specs)
    }
}

/// Makes sure that no two forwards listen in the same place.
///
/// # Errors
/// The first two that do.
pub fn check(specs: &[Spec]) -> Result<(), Overlap> {
    check_disjoint(specs.iter().map(|spec| &spec.from))
}

/// Starts one forward. Must be called within a tokio runtime, on which it then runs.
///
/// # Errors
/// When its place can't be listened on.
pub async fn start<N: Network>(spec: Spec, limits: &Limits, ours: &Arc<N>) -> Result<Handle, StartError> {
    let tally = Arc::<Tally>::default();
    let listen = [spec.from.clone()];
    let forward = forward(spec, limits, ours, &tally);
    let service = Service::new(limits.max_connections);
    Handle::start(&listen, &**ours, limits, tally, service, forward).await
}

/// Has a forward that runs go on as `spec` and `limits` say, but for where it listens: new connections do.
pub fn change<N: Network>(handle: &Handle, spec: Spec, limits: &Limits, ours: &Arc<N>) {
    handle.serve_by(forward(spec, limits, ours, handle.parts().0), limits);
}

/// Listens again where a forward has ceased to by itself, if that is possible now; returns why it has since the last call.
pub async fn listen_again<N: Network>(
    handle: &mut Handle,
    limits: &Limits,
    ours: &Arc<N>,
) -> Vec<StartError> {
    handle.listen_again::<N, Forward<N>>(&**ours, limits).await
}

fn forward<N: Network>(spec: Spec, limits: &Limits, ours: &Arc<N>, tally: &Arc<Tally>) -> Arc<Forward<N>> {
    Arc::new(Forward {
        spec,
        dialer: Dialer::new(Arc::clone(ours), limits.connect_timeout),
        keepalive: limits.probes(),
        idle_timeout: limits.idle(),
        tally: Arc::clone(tally),
        unreachable: AtomicBool::new(false),
    })
}

/// Forwards over the network that `open` brings up, until told to stop.
pub async fn run<N: Network>(
    options: ForwardOptions,
    console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let specs = match options.specs() {
        Ok(specs) => specs,
        Err(failure) => {
            console.diagnostics.line(&failure.line());
            return failure.exit();
        }
    };
    let limits = options.relay.limits;
    let start = async |ours: &Arc<N>, started: &mut Vec<Started>| {
        for spec in specs {
            let to = spec.to.to_string();
            started.push(Started { handle: start(spec, &limits, ours).await?, to });
        }
        Ok(())
    };
    command::run(options.relay, console, open, start, stop).await
}
