//! What faults there are, as a user writes them: `loss=0.05,rx.dup=2%,delay=20ms,seed=7`.

use std::{fmt, str::FromStr};

use crate::time::Duration;

/// Faults of both directions, and the seed that decides which frames they hit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultSpec {
    /// Of frames on their way in.
    pub rx: Faults,
    /// Of frames on their way out.
    pub tx: Faults,
    /// The same seed and the same frames give the same faults.
    pub seed: u64,
}

/// Faults of one direction. Probabilities are from 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Frames that vanish.
    pub loss: f64,
    /// Frames that others overtake.
    pub reorder: f64,
    /// Frames that come twice.
    pub dup: f64,
    /// Frames of which a bit flips.
    pub corrupt: f64,
    /// How many frames a loss takes in a row, on average: losses come in bursts (Gilbert's model), at the same rate in
    /// all. Up to 1, each frame is lost by itself.
    pub burst: f64,
    /// How much later each frame comes.
    pub delay: Duration,
    /// Bits per second that the link carries, of whole Ethernet frames; 0: as many as come.
    pub rate: u64,
    /// Bytes that wait for a link of that rate; what comes beyond them is lost. 0: [`DEFAULT_QUEUE`].
    pub queue: u64,
}

/// What waits for a link whose queue is not given: 100 ms of 100 Mbit/s, about what a home router has.
pub const DEFAULT_QUEUE: u64 = 1_250_000;

/// A list of faults that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultSpecError {
    /// Not `name=value`.
    #[error("`{0}` is not a fault: write NAME=VALUE, as in loss=0.05,delay=20ms,seed=7")]
    NotAPair(String),
    /// A name that is none.
    #[error(
        "there is no fault `{0}`: use loss, burst, reorder, dup, corrupt, delay, rate, queue (each with rx. or tx. in front for one direction \
         only) and seed"
    )]
    UnknownName(String),
    /// Not a number from 0 to 1.
    #[error(
        "`{value}` is not a probability for {name}: write a number from 0 to 1, or a percentage such as 5%"
    )]
    Probability {
        /// The fault.
        name: String,
        /// What was written.
        value: String,
    },
    /// Not a time.
    #[error("`{0}` is not a delay: write a number and ns, us, ms or s, as in 20ms, and 10 s at most")]
    Delay(String),
    /// Not a length of bursts.
    #[error("`{0}` is not a burst: write how many frames are lost in a row on average, from 1 to 1000")]
    Burst(String),
    /// Not a rate.
    #[error("`{0}` is not a rate: write a number and bit, kbit, mbit or gbit (per second), as in 100mbit")]
    Rate(String),
    /// Not a size.
    #[error("`{0}` is not a queue: write a number of bytes, at least 2000")]
    Queue(String),
    /// Not a whole number.
    #[error("`{0}` is not a seed: write a whole number")]
    Seed(String),
}

/// Longest delay. Longer, and every timer of every protocol takes each frame for lost: nothing is tested by that.
const DELAY_MAX: Duration = Duration::from_secs(10);

impl FromStr for FaultSpec {
    type Err = FaultSpecError;

    fn from_str(text: &str) -> Result<Self, FaultSpecError> {
        let mut spec = Self::default();
        for pair in text.split(',').map(str::trim) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| FaultSpecError::NotAPair(pair.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            if name == "seed" {
                spec.seed = value.parse().map_err(|_| FaultSpecError::Seed(value.to_owned()))?;
            } else if let Some(fault) = name.strip_prefix("rx.") {
                spec.rx.set(fault, value)?;
            } else if let Some(fault) = name.strip_prefix("tx.") {
                spec.tx.set(fault, value)?;
            } else {
                spec.rx.set(name, value)?;
                spec.tx.set(name, value)?;
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((name, rx), (_, tx)) in self.rx.numbers().into_iter().zip(self.tx.numbers()) {
            write_both(f, name, (rx > 0.0).then_some(rx), (tx > 0.0).then_some(tx))?;
        }
        let delay = |faults: &Faults| (!faults.delay.is_zero()).then_some(DelayText(faults.delay));
        write_both(f, "delay", delay(&self.rx), delay(&self.tx))?;
        let rate = |faults: &Faults| (faults.rate > 0).then_some(RateText(faults.rate));
        write_both(f, "rate", rate(&self.rx), rate(&self.tx))?;
        let queue = |faults: &Faults| (faults.queue > 0).then_some(faults.queue);
        write_both(f, "queue", queue(&self.rx), queue(&self.tx))?;
        write!(f, "seed={}", self.seed)
    }
}

fn write_both<T: fmt::Display + PartialEq>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    rx: Option<T>,
    tx: Option<T>,
) -> fmt::Result {
    if rx == tx {
        return write_fault(f, "", name, rx);
    }
    write_fault(f, "rx.", name, rx)?;
    write_fault(f, "tx.", name, tx)
}

fn write_fault(
    f: &mut fmt::Formatter<'_>,
    direction: &str,
    name: &str,
    value: Option<impl fmt::Display>,
) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, "{direction}{name}={value},"))
}

impl Faults {
    fn set(&mut self, name: &str, value: &str) -> Result<(), FaultSpecError> {
        let probability = || {
            parse_probability(value)
                .ok_or_else(|| FaultSpecError::Probability { name: name.to_owned(), value: value.to_owned() })
        };
        match name {
            "loss" => self.loss = probability()?,
            "reorder" => self.reorder = probability()?,
            "dup" => self.dup = probability()?,
            "corrupt" => self.corrupt = probability()?,
            "delay" => {
                self.delay = parse_delay(value).ok_or_else(|| FaultSpecError::Delay(value.to_owned()))?;
            }
            "burst" => {
                let burst = value.parse().ok().filter(|burst| (1.0..=BURST_MAX).contains(burst));
                self.burst = burst.ok_or_else(|| FaultSpecError::Burst(value.to_owned()))?;
            }
            "rate" => {
                self.rate = parse_rate(value).ok_or_else(|| FaultSpecError::Rate(value.to_owned()))?;
            }
            "queue" => {
                let queue = value.parse().ok().filter(|&queue| queue >= QUEUE_MIN);
                self.queue = queue.ok_or_else(|| FaultSpecError::Queue(value.to_owned()))?;
            }
            _ => return Err(FaultSpecError::UnknownName(name.to_owned())),
        }
        Ok(())
    }

    fn numbers(&self) -> [(&'static str, f64); 5] {
        [
            ("loss", self.loss),
            ("burst", self.burst),
            ("reorder", self.reorder),
            ("dup", self.dup),
            ("corrupt", self.corrupt),
        ]
    }
}

/// Longer bursts than these are a dead link.
const BURST_MAX: f64 = 1000.0;

/// A smaller queue would lose every full frame.
const QUEUE_MIN: u64 = 2000;

fn parse_probability(text: &str) -> Option<f64> {
    let probability = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&probability).then_some(probability)
}

/// Units of time and the nanoseconds in them, the largest first.
const UNITS: [(&str, u64); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

fn parse_delay(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    let nanos = number.parse::<u64>().ok()?.checked_mul(*nanos)?;
    Some(Duration::from_nanos(nanos)).filter(|delay| *delay <= DELAY_MAX)
}

/// Units of rates and the bits per second in them, the largest first.
const RATES: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

fn parse_rate(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, bits) = RATES.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*bits).filter(|&rate| rate > 0)
}

/// A rate in the largest unit that it is a whole number of.
#[derive(PartialEq)]
struct RateText(u64);

impl fmt::Display for RateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) =
            RATES.into_iter().find(|(_, size)| self.0.is_multiple_of(*size)).unwrap_or(("bit", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

/// A delay in the largest unit that it is a whole number of.
#[derive(PartialEq)]
struct DelayText(Duration);

impl fmt::Display for DelayText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as u64;
        let (unit, size) =
            UNITS.into_iter().find(|(_, size)| nanos.is_multiple_of(*size)).unwrap_or(("ns", 1));
        write!(f, "{}{unit}", nanos / size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faults_are_of_both_directions_unless_one_is_named() {
        let spec: FaultSpec =
            "loss=0.05, rx.dup=2%, delay=20ms, tx.delay=1s, seed=7".parse().expect("a spec");
        assert_eq!((spec.rx.loss, spec.tx.loss), (0.05, 0.05));
        assert_eq!((spec.rx.dup, spec.tx.dup), (0.02, 0.0));
        assert_eq!((spec.rx.delay, spec.tx.delay), (Duration::from_millis(20), Duration::from_secs(1)));
        assert_eq!(spec.seed, 7);
        let link: FaultSpec = "tx.rate=100mbit,tx.queue=500000,loss=1%,burst=4".parse().expect("a spec");
        assert_eq!((link.tx.rate, link.rx.rate, link.tx.queue), (100_000_000, 0, 500_000));
        assert_eq!(link.to_string(), "loss=0.01,burst=4,tx.rate=100mbit,tx.queue=500000,seed=0");
        assert_eq!(spec.to_string(), "loss=0.05,rx.dup=0.02,rx.delay=20ms,tx.delay=1s,seed=7");
    }

    #[test]
    fn what_can_t_be_read_says_why() {
        let error = |text: &str| text.parse::<FaultSpec>().expect_err(text).to_string();
        assert!(error("").contains("NAME=VALUE"));
        assert!(error("loss").contains("`loss` is not a fault"));
        assert!(error("lost=0.1").contains("no fault `lost`"));
        assert!(error("loss=1.5").contains("`1.5` is not a probability for loss"));
        assert!(error("loss=NaN").contains("`NaN`"));
        assert!(error("rx.loss=-1").contains("`-1`"));
        assert!(error("delay=20").contains("`20` is not a delay"));
        assert!(error("delay=11s").contains("10 s at most"));
        assert!(error("delay=99999999999999999999s").contains("is not a delay"));
        assert!(error("burst=0").contains("`0` is not a burst"));
        assert!(error("rate=0mbit").contains("`0mbit` is not a rate"));
        assert!(error("rate=100").contains("as in 100mbit"));
        assert!(error("queue=10").contains("`10` is not a queue"));
        assert!(error("seed=x").contains("`x` is not a seed"));
        assert!(error("rx.seed=1").contains("no fault `seed`"));
    }

    fn faults() -> impl Strategy<Value = Faults> {
        let probability = || prop_oneof![Just(0.0), 0.0..=1.0];
        let delay =
            prop_oneof![Just(0), 0..=10_000_000_000u64, (0..=10_000u64).prop_map(|ms| ms * 1_000_000)];
        let burst = prop_oneof![Just(0.0), 1.0..=BURST_MAX];
        let link = (prop_oneof![Just(0), 1..=u64::MAX], prop_oneof![Just(0), QUEUE_MIN..=u64::MAX]);
        (probability(), burst, probability(), probability(), probability(), delay, link).prop_map(
            |(loss, burst, reorder, dup, corrupt, delay, (rate, queue))| Faults {
                loss,
                burst,
                reorder,
                dup,
                corrupt,
                delay: Duration::from_nanos(delay),
                rate,
                queue,
            },
        )
    }

    proptest! {
        #[test]
        fn a_spec_reads_back_as_it_is_written(rx in faults(), tx in faults(), same: bool, seed: u64) {
            let spec = FaultSpec { rx, tx: if same { rx } else { tx }, seed };
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }

        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = text.parse::<FaultSpec>();
        }
    }
}
