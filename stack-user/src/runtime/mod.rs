//! From protocol code to a running shard: the lock, the driver task, the real clock.

mod clock;
mod driver;
mod life;
mod shard;
mod stopped;
#[cfg(test)]
mod tests;
mod waiters;

pub use clock::Clock;
pub use driver::drive;
pub use life::{Life, LifeError};
pub use shard::{Core, Shard};
pub use stopped::Stopped;
pub use waiters::Waiters;
