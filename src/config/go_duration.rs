//! Go's `time.Duration`, which kube-proxy's flags and files use: `1h30m`, `500ms`, `1.5s`, `0`.

use std::fmt;
use std::time::Duration;

/// Signed duration in nanoseconds, like Go's `time.Duration`.
///
/// It is signed because users can write `-5s`, which validation must show in its error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GoDuration(pub(super) i64);

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Units of Go's `time.ParseDuration`, with both code points of the micro sign that Go accepts.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", MICROSECOND),
    ("\u{b5}s", MICROSECOND),
    ("\u{3bc}s", MICROSECOND),
    ("ms", MILLISECOND),
    ("s", SECOND),
    ("m", MINUTE),
    ("h", HOUR),
];

impl GoDuration {
    pub(super) const ZERO: Self = Self(0);

    pub(super) const fn seconds(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// Parses with the rules of Go's `time.ParseDuration`: an optional sign, then `0` alone or a sequence of
    /// decimal numbers, each with a unit. Returns `None` where Go returns an error, including overflow.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(Self::ZERO);
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (nanoseconds, remaining) = parse_part(rest)?;
            total = total.checked_add(nanoseconds)?;
            rest = remaining;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed).ok().map(Self)
    }

    /// Converts to a [`Duration`]; `None` if negative.
    pub(super) fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

/// Parses the first `12.5ms` of a text. Returns its nanoseconds and the rest of the text.
fn parse_part(text: &str) -> Option<(i128, &str)> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    Some((whole.checked_mul(i128::from(*factor))? + fraction_of(fraction, *factor), rest))
}

/// Returns the fraction `.25` of a unit in nanoseconds, truncated to whole nanoseconds as in Go.
fn fraction_of(digits: &str, unit: i64) -> i128 {
    // A nanosecond is at best 10^-13 of an hour, so digits after the 18th cannot change the result.
    let digits = &digits[..digits.len().min(18)];
    let scale = 10_i128.pow(digits.len() as u32);
    digits.parse::<i128>().map_or(0, |fraction| fraction * i128::from(unit) / scale)
}

impl fmt::Display for GoDuration {
    /// Formats like Go's `Duration.String`: `15m0s`, `1h0m0s`, `1.5s`, `250ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanoseconds = self.0.unsigned_abs();
        let below = |unit: i64| nanoseconds < unit.unsigned_abs();
        if below(MICROSECOND) {
            return write!(f, "{nanoseconds}ns");
        }
        if below(MILLISECOND) {
            return write_decimal(f, nanoseconds, MICROSECOND, "\u{b5}s");
        }
        if below(SECOND) {
            return write_decimal(f, nanoseconds, MILLISECOND, "ms");
        }
        let (hour, minute) = (HOUR.unsigned_abs(), MINUTE.unsigned_abs());
        if nanoseconds >= hour {
            write!(f, "{}h", nanoseconds / hour)?;
        }
        if nanoseconds >= minute {
            write!(f, "{}m", nanoseconds % hour / minute)?;
        }
        write_decimal(f, nanoseconds % minute, SECOND, "s")
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, value: u64, unit: i64, name: &str) -> fmt::Result {
    let unit = unit.unsigned_abs();
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return write!(f, "{whole}{name}");
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    write!(f, "{whole}.{}{name}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        // (as written, nanoseconds, as Go prints it)
        let rows = [
            ("0", 0, "0s"),
            ("-0", 0, "0s"),
            ("+5s", 5 * SECOND, "5s"),
            ("-5s", -5 * SECOND, "-5s"),
            ("500ms", 500 * MILLISECOND, "500ms"),
            ("1.5s", 1_500 * MILLISECOND, "1.5s"),
            (".5s", 500 * MILLISECOND, "500ms"),
            ("1.s", SECOND, "1s"),
            ("1h30m", 90 * MINUTE, "1h30m0s"),
            ("90m", 90 * MINUTE, "1h30m0s"),
            ("24h", 24 * HOUR, "24h0m0s"),
            ("15m", 15 * MINUTE, "15m0s"),
            ("2h22m", 142 * MINUTE, "2h22m0s"),
            ("1m0.001s", MINUTE + MILLISECOND, "1m0.001s"),
            ("1us", MICROSECOND, "1\u{b5}s"),
            ("1.5\u{b5}s", 1_500, "1.5\u{b5}s"),
            ("1.5\u{3bc}s", 1_500, "1.5\u{b5}s"),
            ("7ns", 7, "7ns"),
            ("0.1234567899s", 123_456_789, "123.456789ms"),
            ("0.100000000000000000000h", 6 * MINUTE, "6m0s"),
            ("9223372036854775807ns", i64::MAX, "2562047h47m16.854775807s"),
        ];
        for (text, nanoseconds, printed) in rows {
            assert_eq!(GoDuration::parse(text), Some(GoDuration(nanoseconds)), "{text}");
            assert_eq!(GoDuration(nanoseconds).to_string(), printed);
        }
    }

    #[test]
    fn durations_that_go_rejects() {
        for text in [
            "",
            "-",
            "5",
            "s",
            ".s",
            "5x",
            "5 s",
            " 5s",
            "5s ",
            "1..5s",
            "1.2.3s",
            "9223372036854775808ns",
            "3m5",
            "1d",
        ] {
            assert_eq!(GoDuration::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn negative_durations_have_no_std_form() {
        assert_eq!(GoDuration(-1).to_std(), None);
        assert_eq!(GoDuration::seconds(2).to_std(), Some(Duration::from_secs(2)));
    }

    proptest::proptest! {
        #[test]
        fn every_duration_reads_back_the_same(nanoseconds in proptest::num::i64::ANY) {
            // The least i64 has no positive counterpart to read.
            let duration = GoDuration(nanoseconds.max(-i64::MAX));
            proptest::prop_assert_eq!(GoDuration::parse(&duration.to_string()), Some(duration));
        }
    }
}
