//! What a pump has to say in the end, and in between.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{frames::TCP_HEADERS, roles::Tally};
use crate::time::Duration;

/// The result of a role.
pub(super) struct Report<'a> {
    /// Its name on the command line.
    pub(super) role: &'static str,
    pub(super) tally: Tally,
    /// Frames that did not come, where that can be told.
    pub(super) lost: Option<u64>,
    pub(super) latency: Option<&'a Histogram<u64>>,
}

/// The quantiles that are told, and their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

impl Report<'_> {
    /// One object.
    pub(super) fn to_json(&self) -> Value {
        let Tally { frames, bytes, .. } = self.tally;
        let seconds = self.tally.time().as_secs_f64();
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        // What is left for data if each frame were a full TCP segment with timestamps: what goodput is compared with.
        let payload = bytes.saturating_sub(frames.saturating_mul(TCP_HEADERS as u64));
        let mut object = json!({
            "benchmark": "pump",
            "role": self.role,
            "frames": frames,
            "bytes": bytes,
            "seconds": seconds,
            "frames_per_second": per_second(frames as f64),
            "bits_per_second": per_second(bytes as f64 * 8.0),
            "payload_bits_per_second": per_second(payload as f64 * 8.0),
        });
        if let Some(lost) = self.lost {
            object["lost"] = lost.into();
        }
        if let Some(latency) = self.latency {
            object["latency_ns"] = latency_ns(latency);
        }
        object
    }

    /// A sentence.
    pub(super) fn to_text(&self) -> String {
        let time = self.tally.time();
        let mut text = match self.latency {
            None => {
                format!("{}: {} frames in {:.2} s: ", self.role, self.tally.frames, time.as_secs_f64())
                    + &rates(self.tally.frames, self.tally.bytes, time)
            }
            Some(latency) => {
                let micros = |nanos: u64| nanos as f64 / 1e3;
                let quantiles = QUANTILES.map(|(name, quantile)| {
                    format!("{name} {:.1}", micros(latency.value_at_quantile(quantile)))
                });
                format!(
                    "{}: {} frames there and back in {:.2} s: {}, max {:.1} µs",
                    self.role,
                    self.tally.frames,
                    time.as_secs_f64(),
                    quantiles.join(", "),
                    micros(latency.max())
                )
            }
        };
        if let Some(lost) = self.lost.filter(|&lost| lost > 0) {
            text += &format!(", {lost} lost");
        }
        text
    }
}

/// So many frames in that time.
pub(super) fn rates(frames: u64, bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
    let (mega, giga) = (frames as f64 / seconds / 1e6, bytes as f64 * 8.0 / seconds / 1e9);
    format!("{mega:.3} Mframes/s, {giga:.2} Gbit/s")
}

fn latency_ns(latency: &Histogram<u64>) -> Value {
    let mut object = json!({ "min": latency.min(), "max": latency.max(), "mean": latency.mean() });
    for (name, quantile) in QUANTILES {
        object[name] = latency.value_at_quantile(quantile).into();
    }
    object
}
