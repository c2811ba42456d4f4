//! The shards of a stack: which of them a handle reaches, and how to ask all of them without waiting for one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::runtime::Handle;

use super::{Running, Stack};
use crate::{
    runtime::{Core, Shard},
    time::Instant,
};

/// One shard of a stack, which keeps the whole of it running: what lives there holds this.
#[derive(Clone, Debug)]
pub(super) struct Home {
    running: Arc<Running>,
    number: usize,
}

impl Home {
    pub(super) fn shard(&self) -> &Shard {
        &self.running.shards[self.number]
    }

    /// Where its driver runs.
    pub(super) fn driver(&self) -> &Handle {
        &self.running.drivers[self.number]
    }
}

impl Stack {
    /// How many shards this handle reaches: one for each queue of the NIC that is bound, or the one that it was
    /// [restricted](Self::on_shard) to.
    pub fn shard_count(&self) -> usize {
        self.shards().len()
    }

    /// A handle that reaches the shard of that number only: what is opened by it lives there, and its tasks are best run
    /// where the shard's driver runs. `None` if this handle reaches no such shard.
    pub fn on_shard(&self, number: usize) -> Option<Self> {
        let number = if number < self.shard_count() { number + self.only.unwrap_or(0) } else { return None };
        Some(Self { running: Arc::clone(&self.running), only: Some(number) })
    }

    /// The shards that this handle reaches.
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        match self.only {
            Some(number) => &self.running.shards[number..=number],
            None => &self.running.shards,
        }
    }

    /// One of [`shards`](Self::shards), to live on.
    pub(super) fn home(&self, position: usize) -> Home {
        Home { running: Arc::clone(&self.running), number: position + self.only.unwrap_or(0) }
    }

    /// The shard for something new.
    pub(super) fn next_home(&self) -> Home {
        self.home(self.next_position())
    }

    /// The shard for a connection from a port that was chosen: the one where the last between the same ends has left its
    /// TIME-WAIT, if this handle reaches that.
    pub(super) fn home_for(&self, local: SocketAddr, remote: SocketAddr) -> Home {
        let home = self.next_home();
        if local.port() == 0 || self.shard_count() == 1 {
            return home;
        }
        let owner = home.shard().with(|core, _| core.stack.shard_of(local, remote));
        owner.filter(|&number| number < self.shard_count()).map_or(home, |number| self.home(number))
    }

    /// Its place among [`shards`](Self::shards): each in turn, but rather one that nobody works on.
    pub(super) fn next_position(&self) -> usize {
        match self.shards().len() {
            1 => 0,
            _ => self.idle_position(self.running.next.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// `first`, or another that nobody works on: a shard that is stuck would take the caller along.
    pub(super) fn idle_position(&self, first: usize) -> usize {
        let shards = self.shards();
        let mut turns = (0..shards.len()).map(|turn| first.wrapping_add(turn) % shards.len());
        turns.find(|&position| !shards[position].is_busy()).unwrap_or(first % shards.len())
    }
}

/// Whose turn it is, so that a busy shard does not starve the others.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicUsize);

impl Turn {
    /// Asks the shards one after the other until one has something, and leaves the turn with that one. Without a context
    /// nobody is woken.
    ///
    /// A shard that somebody works on is passed over, and the task woken when they have finished: one that is stuck does not
    /// keep from us what others have.
    pub(super) fn poll<T>(
        &self,
        shards: &[Arc<Shard>],
        cx: Option<&Context<'_>>,
        mut ask: impl FnMut(usize, &mut Core, Instant) -> Poll<T>,
    ) -> Poll<T> {
        let first = self.0.load(Ordering::Relaxed);
        for turn in 0..shards.len() {
            let position = first.wrapping_add(turn) % shards.len();
            let shard = &shards[position];
            let answer = match cx {
                Some(cx) => shard.try_with(cx, |core, now| ask(position, core, now)),
                None => Some(shard.with(|core, now| ask(position, core, now))),
            };
            if let Some(Poll::Ready(answer)) = answer {
                self.0.store(position, Ordering::Relaxed);
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    }

    /// The next is asked first.
    pub(super) fn pass_on(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Waker, thread};

    use super::*;
    use crate::{
        device::{Umem, memory},
        rng::Rng,
        runtime::Clock,
        stack,
        wire::MacAddr,
    };

    #[tokio::test]
    async fn a_shard_whose_lock_is_held_is_passed_over() {
        let clock = Clock::new();
        let part = |number| {
            let umem = Umem::on_heap(16).expect("memory");
            let mac = MacAddr([2, 0, 0, 0, 0, 1]);
            let stack = stack::Stack::new(clock.now(), mac, None, umem, Rng::from_seed(number));
            let (device, _) = memory::tap(memory::Options::default());
            (stack, Box::new(device) as Box<dyn crate::device::Device>)
        };
        let parts = (0..3).map(part).collect();
        let stack = Stack::over_all(parts, clock, Vec::new()).expect("a stack");
        let (held, is_held) = mpsc::channel();
        let (release, is_released) = mpsc::channel::<()>();
        let stuck = Arc::clone(&stack.shards()[0]);
        let holder = thread::spawn(move || {
            stuck.with(|_, _| {
                let _ = held.send(());
                let _ = is_released.recv();
            });
        });
        is_held.recv().expect("held");
        let cx = Context::from_waker(Waker::noop());
        let (turn, mut asked) = (Turn::default(), Vec::new());
        let answer = turn.poll(stack.shards(), Some(&cx), |position, _, _| {
            asked.push(position);
            if position == 2 { Poll::Ready(position) } else { Poll::Pending }
        });
        assert_eq!((answer, asked), (Poll::Ready(2), vec![1, 2]));
        assert!((0..6).all(|_| stack.next_home().number != 0), "nothing new goes there");
        release.send(()).expect("released");
        holder.join().expect("no panic");
        let homes: Vec<_> = (0..6).map(|_| stack.next_home().number).collect();
        assert!((0..3).all(|number| homes.contains(&number)), "{homes:?}");
    }
}
