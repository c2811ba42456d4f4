//! What the ends tell each other of what they have measured.

use serde::{Deserialize, Deserializer, Serialize};

use super::{control::Broken, parameters::number};

/// What one end has measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) cpu_util_total: f64,
    pub(super) cpu_util_user: f64,
    pub(super) cpu_util_system: f64,
    /// 1 if whoever says this counts what it sends again, 0 if not, -1 if it does not send.
    #[serde(deserialize_with = "whole")]
    pub(super) sender_has_retransmits: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) congestion_used: Option<String>,
    pub(super) streams: Vec<StreamResults>,
}

/// What it has of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct StreamResults {
    #[serde(deserialize_with = "number")]
    pub(super) id: u64,
    /// Sent or received.
    #[serde(deserialize_with = "number")]
    pub(super) bytes: u64,
    /// -1 if it does not send, or does not count.
    #[serde(deserialize_with = "whole")]
    pub(super) retransmits: i64,
    /// In seconds.
    pub(super) jitter: f64,
    /// Datagrams that did not come.
    #[serde(deserialize_with = "whole")]
    pub(super) errors: i64,
    #[serde(deserialize_with = "number")]
    pub(super) packets: u64,
    #[serde(default)]
    pub(super) start_time: f64,
    #[serde(default)]
    pub(super) end_time: f64,
}

impl StreamResults {
    /// For how long it was measured, if that was told: iperf3 before 3.2 does not.
    pub(super) fn seconds(&self) -> Option<f64> {
        Some(self.end_time - self.start_time).filter(|seconds| *seconds > 0.0)
    }
}

/// As for counts, a double may be what is written.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(f64::deserialize(deserializer)? as i64)
}

impl Results {
    /// The results of each of the streams with these numbers.
    ///
    /// # Errors
    /// When the other end speaks of other streams.
    pub(super) fn of(&self, ids: impl ExactSizeIterator<Item = u32>) -> Result<Vec<StreamResults>, Broken> {
        if self.streams.len() != ids.len() {
            let (told, there) = (self.streams.len(), ids.len());
            return Err(Broken::Garbled(format!("it has results of {told} streams, and there are {there}")));
        }
        ids.map(|id| {
            let found = self.streams.iter().find(|stream| stream.id == u64::from(id));
            found.cloned().ok_or_else(|| Broken::Garbled(format!("it has no results of stream {id}")))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the server of Debian's 3.12 sends them.
    const REAL: &str = r#"{"cpu_util_total":14.16,"cpu_util_user":0,"cpu_util_system":14.16,"sender_has_retransmits":-1,
        "congestion_used":"cubic","streams":[{"id":1,"bytes":295960576,"retransmits":-1,"jitter":0,"errors":0,"packets":0,
        "start_time":0,"end_time":1.025722},{"id":3,"bytes":10000000000,"retransmits":-1,"jitter":1e-05,"errors":-1,
        "packets":7,"start_time":0,"end_time":1.025722}]}"#;

    #[test]
    fn what_the_real_server_has_measured_is_understood() {
        let results: Results = serde_json::from_str(REAL).expect("results");
        let streams = results.of([1, 3].into_iter()).expect("both");
        assert_eq!(streams[1].bytes, 10_000_000_000);
        assert_eq!((streams[1].errors, streams[1].packets), (-1, 7));
        assert_eq!(streams[0].seconds(), Some(1.025722));
        assert_eq!(results.congestion_used.as_deref(), Some("cubic"));
    }

    #[test]
    fn results_of_other_streams_are_refused() {
        let results: Results = serde_json::from_str(REAL).expect("results");
        for ids in [&[1][..], &[1, 2], &[1, 3, 4], &[]] {
            assert!(results.of(ids.iter().copied()).is_err(), "{ids:?}");
        }
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for text in [
            "{}",
            r#"{"cpu_util_total":0,"cpu_util_user":0,"cpu_util_system":0,"sender_has_retransmits":0}"#,
            r#"{"cpu_util_total":0,"cpu_util_user":0,"cpu_util_system":0,"sender_has_retransmits":0,"streams":{}}"#,
            r#"{"cpu_util_total":0,"cpu_util_user":0,"cpu_util_system":0,"sender_has_retransmits":0,"streams":[{"id":1}]}"#,
            r#"{"cpu_util_total":0,"cpu_util_user":0,"cpu_util_system":0,"sender_has_retransmits":0,"streams":[
                {"id":-1,"bytes":1,"retransmits":0,"jitter":0,"errors":0,"packets":0}]}"#,
        ] {
            assert!(serde_json::from_str::<Results>(text).is_err(), "{text}");
        }
    }
}
