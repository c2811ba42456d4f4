//! Times as logs and listings write them: always UTC, since who reads them is seldom where they were written.

use std::time::SystemTime;

use time::OffsetDateTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// `06/Nov/1994:08:49:37 +0000`, as in the Common Log Format.
pub fn common_log(time: SystemTime) -> String {
    let (t, month) = parts(time);
    format!(
        "{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000",
        t.day(),
        t.year(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// `1994-11-06 08:49:37 UTC`, which sorts.
pub fn sortable(time: SystemTime) -> String {
    let t = OffsetDateTime::from(time);
    let month = u8::from(t.month());
    format!(
        "{:04}-{month:02}-{:02} {:02}:{:02}:{:02} UTC",
        t.year(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, as in HTTP (RFC 9110 §5.6.7).
pub fn http(time: SystemTime) -> String {
    let (t, month) = parts(time);
    let day = DAYS[usize::from(t.weekday().number_days_from_monday())];
    let (year, hour, minute, second) = (t.year(), t.hour(), t.minute(), t.second());
    format!("{day}, {:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT", t.day())
}

/// `1994-11-06T08:49:37Z`, as in RFC 3339.
pub fn iso(time: SystemTime) -> String {
    let (t, _) = parts(time);
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.year(), t.hour(), t.minute(), t.second())
}

/// `1994-11-06 08:49`, for people.
pub fn minutes(time: SystemTime) -> String {
    let (t, _) = parts(time);
    format!("{:04}-{:02}-{:02} {:02}:{:02}", t.year(), u8::from(t.month()), t.day(), t.hour(), t.minute())
}

/// A time that no calendar has (a file system can hold the strangest) becomes the epoch.
fn parts(time: SystemTime) -> (OffsetDateTime, &'static str) {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(0),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(0, |seconds| -seconds),
    };
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (time, MONTHS[usize::from(u8::from(time.month())) - 1])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_date_of_the_rfc_in_every_form() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(common_log(time), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(http(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso(time), "1994-11-06T08:49:37Z");
        assert_eq!(minutes(time), "1994-11-06 08:49");
    }

    #[test]
    fn times_before_the_epoch_and_beyond_every_calendar_are_told_somehow() {
        assert_eq!(minutes(SystemTime::UNIX_EPOCH - Duration::from_secs(86_400)), "1969-12-31 00:00");
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 10_000);
        assert_eq!(minutes(far), "1970-01-01 00:00");
    }
}
