//! The self-test: the whole stack, against the kernel's own TCP, on a pair of interfaces that nobody else sees.
//!
//! They are in a network namespace without a name, which a thread makes for itself. When the thread ends, and what it has
//! opened is closed, the kernel removes the namespace and all that is in it, whatever way the process ends.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use futures_util::TryFutureExt;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::Uid,
};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net as kernel,
    sync::oneshot,
    time::{Instant, timeout},
};

use super::facts::Host;
use crate::{
    api::{AddressChoice, Stack, TcpListener, TcpStream},
    device::{
        interface::{self, features},
        kernel::panics_on_copied_frames,
        unprivileged,
        xdp::program,
    },
};

/// Our end of the pair, and the kernel's.
const OURS: &str = "xs-doctor0";
const KERNELS: &str = "xs-doctor1";
/// TEST-NET-1, which is nobody's.
const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const KERNELS_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PREFIX_LEN: u8 = 24;
const PORT: u16 = 7;

/// Bytes that go each way. Fewer would fit in a window, so that no acknowledgement has to move it; more takes longer on a
/// slow machine, and shows nothing else.
const TRANSFER: usize = 1 << 20;

/// How long all of it may take. Shorter, and a machine under load fails that is all right; longer, and who waits gives up.
const LIMIT: Duration = Duration::from_secs(20);

/// How long closing may take: what is left is gone with the namespace.
const CLOSE_GRACE: Duration = Duration::from_millis(200);

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SelfTest {
    /// Whether it passed, failed, or was not run.
    pub outcome: Outcome,
    /// Why it failed, or was not run.
    pub reason: Option<String>,
    /// The command that runs it, if it was not.
    pub command: Option<String>,
    /// Where the XDP program ran: `native` or `generic`.
    pub mode: Option<&'static str>,
    /// The device, and how it was bound.
    pub device: Option<String>,
    /// What was done, in order, and how long each took.
    pub steps: Vec<Step>,
}

/// Whether it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All of it worked.
    Passed,
    /// Something did not.
    Failed,
    /// It was not run.
    Skipped,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    pub name: &'static str,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

impl SelfTest {
    /// It was not run.
    pub fn skipped(reason: impl Into<String>, command: Option<String>) -> Self {
        Self { outcome: Outcome::Skipped, reason: Some(reason.into()), command, ..Self::begun() }
    }

    fn begun() -> Self {
        Self {
            outcome: Outcome::Passed,
            reason: None,
            command: None,
            mode: None,
            device: None,
            steps: Vec::new(),
        }
    }
}

/// Runs it, in a thread and a network namespace of its own; not in a kernel that it would bring down.
pub async fn run(host: &Host) -> SelfTest {
    if panics_on_copied_frames(&host.release) {
        return SelfTest::skipped(format!("Linux {} would panic: install 6.18 or later", host.release), None);
    }
    if !Uid::effective().is_root() {
        return SelfTest::skipped(
            "a network namespace with a pair of interfaces takes root",
            Some("sudo xstack doctor".to_owned()),
        );
    }
    let (sender, receiver) = oneshot::channel();
    let thread = thread::Builder::new().name("self-test".to_owned()).spawn(move || {
        unprivileged::thread_begins();
        // Nobody listens any more if the command was stopped.
        let _ = sender.send(alone());
    });
    match thread {
        Ok(_) => receiver.await.unwrap_or_else(|_| failed("its thread ended")),
        Err(error) => failed(&format!("its thread did not start: {error}")),
    }
}

fn failed(reason: &str) -> SelfTest {
    SelfTest { outcome: Outcome::Failed, reason: Some(reason.to_owned()), ..SelfTest::begun() }
}

/// Leaves the process's network namespace for a new one, and does it there.
fn alone() -> SelfTest {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return SelfTest::skipped(
            format!("this environment forbids network namespaces: {error}"),
            Some("sudo xstack doctor".to_owned()),
        );
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("its runtime did not start: {error}")),
    };
    runtime.block_on(async {
        let mut test = SelfTest::begun();
        let error = match timeout(LIMIT, steps(&mut test)).await {
            Ok(Ok(())) => return test,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not done within {LIMIT:?}"),
        };
        (test.outcome, test.reason) = (Outcome::Failed, Some(error));
        test
    })
}

impl SelfTest {
    async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let begun = Instant::now();
        let done = work.await.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.steps.push(Step { name, milliseconds });
        Ok(done)
    }
}

async fn steps(test: &mut SelfTest) -> io::Result<()> {
    test.step("make a pair of interfaces", pair()).await?;
    let stack = test.step("attach, bind, and probe the address by ARP", stack()).await?;
    let index = nix::net::if_::if_nametoindex(OURS)?;
    let program = program::on_interface(index)?;
    test.mode = program.map(|program| if program.is_generic { "generic" } else { "native" });
    test.device = stack.shard_infos().into_iter().next().map(|shard| shard.device);

    let listener = kernel::TcpListener::bind((KERNELS_ADDRESS, PORT)).await?;
    let to_kernel = async {
        let address = SocketAddr::from((KERNELS_ADDRESS, PORT));
        let accept = listener.accept().map_ok(|(stream, _)| stream);
        tokio::try_join!(TcpStream::connect(&stack, address), accept)
    };
    let (ours, theirs) = test.step("connect to the kernel by TCP", to_kernel).await?;
    let (from_us, at_kernel) = (ours, theirs);
    let (mut from_us, mut at_kernel) =
        test.step("send 1 MiB to the kernel", transfer(from_us, at_kernel)).await?;
    test.step("receive 1 MiB from the kernel", transfer(&mut at_kernel, &mut from_us)).await?;

    let listener = TcpListener::bind(&stack, (OUR_ADDRESS, PORT).into()).await?;
    let from_kernel = async {
        let accept = listener.accept().map_ok(|(stream, _)| stream);
        let connect = kernel::TcpStream::connect((OUR_ADDRESS, PORT));
        let (theirs, ours) = tokio::try_join!(connect, accept)?;
        transfer_of(theirs, ours, 1).await.map(|_| ())
    };
    test.step("accept a connection of the kernel's", from_kernel).await?;
    drop((from_us, at_kernel, listener));
    stack.shut_down(CLOSE_GRACE).await;
    Ok(())
}

/// Both ends of a pair, up; the kernel's has an address, and finishes its checksums.
async fn pair() -> io::Result<()> {
    interface::add_pair(OURS, KERNELS).await.map_err(io::Error::other)?;
    interface::add_address(KERNELS, KERNELS_ADDRESS.into(), PREFIX_LEN).await.map_err(io::Error::other)?;
    features::switch(KERNELS, features::Offload::TxChecksum, false)?;
    for end in [OURS, KERNELS] {
        interface::set_up(end).await.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn stack() -> io::Result<Stack> {
    Stack::builder()
        .interface(Some(OURS.to_owned()))
        .address(AddressChoice::Given { address: OUR_ADDRESS, prefix_len: Some(PREFIX_LEN) })
        .start()
        .await
        .map_err(io::Error::other)
}

async fn transfer<F, T>(from: F, to: T) -> io::Result<(F, T)>
where
    F: AsyncWrite + Unpin,
    T: AsyncRead + Unpin,
{
    transfer_of(from, to, TRANSFER).await
}

/// Sends so many bytes, and makes sure that they are the same on arrival.
async fn transfer_of<F, T>(mut from: F, mut to: T, bytes: usize) -> io::Result<(F, T)>
where
    F: AsyncWrite + Unpin,
    T: AsyncRead + Unpin,
{
    // A prime number of different bytes, so that a segment that is missing or in the wrong place shows.
    let sent: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    let mut received = vec![0; bytes];
    let send = async {
        from.write_all(&sent).await?;
        from.flush().await
    };
    tokio::try_join!(send, to.read_exact(&mut received))?;
    if received != sent {
        let at = sent.iter().zip(&received).position(|(a, b)| a != b).unwrap_or_default();
        return Err(io::Error::other(format!("byte {at} is not the one that was sent")));
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kernel_that_would_panic_is_left_alone() {
        let host = Host { release: "6.16.12".to_owned(), ..Host::default() };
        let test = run(&host).await;
        assert_eq!((test.outcome, test.steps.len()), (Outcome::Skipped, 0));
        assert!(test.reason.expect("a reason").contains("6.16.12 would panic"));
    }
}
