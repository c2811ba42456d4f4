//! Threads for a server's shards: each runs the drivers of its shards, and the tasks of the connections that live there.
//!
//! A connection's task then finds its shard's lock free and its frames in the cache of its own core. With one queue there is
//! one shard, and the main thread runs it.

use std::{io, thread, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::device::unprivileged;

/// How long a thread waits at its end for what blocks: a read from a slow disk, say. Shorter than anybody notices.
const SHUTDOWN: Duration = Duration::from_millis(500);

/// Some threads, each with a runtime of its own. They end with this.
#[derive(Debug, Default)]
pub struct Threads {
    runtimes: Vec<Handle>,
    ended: CancellationToken,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Threads {
    /// So many threads as there are shards, but not more than `most`; none if that makes one.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors to give.
    pub fn for_shards(shards: usize, most: usize) -> io::Result<Self> {
        let count = shards.min(most);
        let mut threads = Self::default();
        if count > 1 {
            (0..count).try_for_each(|number| threads.add(number))?;
        }
        Ok(threads)
    }

    /// Their runtimes.
    pub fn runtimes(&self) -> &[Handle] {
        &self.runtimes
    }

    fn add(&mut self, number: usize) -> io::Result<()> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_start(unprivileged::thread_begins)
            .build()?;
        self.runtimes.push(runtime.handle().clone());
        let ended = self.ended.clone();
        let run = move || run(runtime, &ended);
        self.threads.push(thread::Builder::new().name(format!("shard-{number}")).spawn(run)?);
        Ok(())
    }
}

fn run(runtime: Runtime, ended: &CancellationToken) {
    // The runtime's own hook is for the threads that it starts; this one we started.
    unprivileged::thread_begins();
    runtime.block_on(ended.cancelled());
    runtime.shutdown_timeout(SHUTDOWN);
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.ended.cancel();
        for thread in self.threads.drain(..) {
            // A task that panicked has said so; there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_threads_than_shards_or_cores_and_none_for_one() {
        for (shards, most, threads) in [(1, 8, 0), (8, 1, 0), (2, 8, 2), (8, 3, 3), (0, 4, 0)] {
            let started = Threads::for_shards(shards, most).expect("threads");
            assert_eq!(started.runtimes().len(), threads, "{shards} shards, {most} cores");
        }
    }

    #[test]
    fn each_runtime_is_one_thread_and_ends_with_the_rest_though_tasks_are_left() {
        let threads = Threads::for_shards(2, 2).expect("threads");
        let (told, names) = std::sync::mpsc::channel();
        for runtime in threads.runtimes() {
            let told = told.clone();
            runtime.spawn(async move {
                let _ = told.send(thread::current().name().map(str::to_owned));
                std::future::pending::<()>().await;
            });
        }
        let mut ran_on: Vec<_> = (0..2).map(|_| names.recv().expect("runs").expect("has a name")).collect();
        ran_on.sort();
        assert_eq!(ran_on, ["shard-0", "shard-1"]);
        drop(threads);
        drop(told);
        assert!(names.recv().is_err(), "the tasks are gone with their runtimes");
    }
}
