//! What the kernel has of memory and sockets. It is of the whole machine, so others are in it.

use std::fs;

use anyhow::{Context, Result};

/// In bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// All of the kernel's objects.
    pub(super) slab: i64,
    /// What programs could still have.
    pub(super) available: i64,
    /// TCP sockets in this network namespace.
    pub(super) sockets: i64,
}

impl Memory {
    pub(super) fn now() -> Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kilobytes = |name| number_after(&memory, name).map(|n| n * 1024);
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        Ok(Self {
            slab: kilobytes("Slab:")?,
            available: kilobytes("MemAvailable:")?,
            sockets: number_after(&sockets, "TCP: inuse")?,
        })
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            slab: self.slab - before.slab,
            available: self.available - before.available,
            sockets: self.sockets - before.sockets,
        }
    }
}

fn number_after(text: &str, name: &str) -> Result<i64> {
    let (_, rest) = text.split_once(name).with_context(|| format!("no {name:?} in /proc"))?;
    let number = rest.split_whitespace().next().context("nothing behind it")?;
    Ok(number.parse()?)
}
