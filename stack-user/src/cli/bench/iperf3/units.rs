//! Numbers with a unit, read and written as iperf3 does: sizes go by 1024, rates by 1000.

use super::parameters::MAX_BURST;

/// More bytes or bits than anybody will ever ask for, and still exact in the doubles that the protocol has.
const MOST: f64 = 9e15;

/// A size in bytes: a number, and k, m, g or t for so many times 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    scaled(text, 1024.0)
}

/// A rate in bits per second: a number, and k, m, g or t for so many times 1000.
fn rate(text: &str) -> Result<u64, String> {
    scaled(text, 1000.0)
}

/// RATE[/BURST]: bits per second, and how many blocks are sent in one go.
pub(super) fn bitrate(text: &str) -> Result<(u64, u32), String> {
    let Some((bits, burst)) = text.split_once('/') else { return Ok((rate(text)?, 0)) };
    let burst = burst.parse().ok().filter(|burst| (1..=MAX_BURST).contains(burst));
    Ok((rate(bits)?, burst.ok_or_else(|| format!("a burst is of 1 to {MAX_BURST} blocks"))?))
}

fn scaled(text: &str, step: f64) -> Result<u64, String> {
    let (digits, power) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let power = "kmgt".find(unit.to_ascii_lowercase()).ok_or("the units are K, M, G and T")?;
            (&text[..at], power as i32 + 1)
        }
        _ => (text, 0),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = digits.parse().ok().filter(|_| is_number).ok_or("not a number")?;
    let scaled = number * step.powi(power);
    if scaled <= MOST { Ok(scaled as u64) } else { Err("too large".to_owned()) }
}

/// `bytes` in four digits and a unit.
pub(super) fn show_bytes(bytes: f64) -> String {
    show(bytes, 1024.0, ["Byte", "KByte", "MByte", "GByte", "TByte"])
}

/// A rate in bits per second, likewise.
pub(super) fn show_bits(bits_per_second: f64) -> String {
    show(bits_per_second, 1000.0, ["bit", "Kbit", "Mbit", "Gbit", "Tbit"])
}

fn show(mut number: f64, step: f64, units: [&str; 5]) -> String {
    let mut unit = 0;
    while number >= step && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    // Where rounding would add a digit, there is one fewer behind the point.
    let places = match number {
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:4.places$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_by_1024_and_rates_by_1000() {
        for (text, bytes, bits) in [
            ("0", 0, 0),
            ("17", 17, 17),
            ("1k", 1024, 1000),
            ("1K", 1024, 1000),
            ("1.5m", 1_572_864, 1_500_000),
            ("10G", 10_737_418_240, 10_000_000_000),
            ("2T", 2_199_023_255_552, 2_000_000_000_000),
        ] {
            assert_eq!((size(text), rate(text)), (Ok(bytes), Ok(bits)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["", "k", "-1", "+1", "1x", "1kk", "0x10", "inf", "nan", "1e3", "1,5", "9999999T", "1 k", "ü"]
        {
            assert!(size(text).is_err(), "{text}");
            assert!(bitrate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_may_have_a_burst() {
        assert_eq!(bitrate("10M"), Ok((10_000_000, 0)));
        assert_eq!(bitrate("10M/20"), Ok((10_000_000, 20)));
        for text in ["10M/", "10M/0", "10M/1001", "/5", "1/2/3"] {
            assert!(bitrate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_look_as_iperf3_has_them() {
        for (bytes, text) in [
            (0.0, "0.00 Byte"),
            (1023.0, "1023 Byte"),
            (1024.0, "1.00 KByte"),
            (9.99 * 1024.0, "9.99 KByte"),
            (9.996 * 1024.0, "10.0 KByte"),
            (99.96 * 1024.0, " 100 KByte"),
            (1_277_952.0, "1.22 MByte"),
            (1e15, " 909 TByte"),
        ] {
            assert_eq!(show_bytes(bytes), text);
        }
        assert_eq!(show_bits(10_222_737.0), "10.2 Mbit");
        assert_eq!(show_bits(999.6), "1000 bit");
        assert_eq!(show_bits(2.1e16), "21000 Tbit");
    }
}
