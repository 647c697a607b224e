//! Numbers, times and durations for people.

use jiff::Timestamp;
use maud::{Markup, html};

/// Returns a number with thin spaces between groups of three digits: `12 345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Returns the number of elements as [`number`] does.
pub(super) fn count(count: usize) -> String {
    number(count as u64)
}

/// Returns a duration with two significant parts: `0.35 ms`, `1.2 s`, `3 min 5 s`, `2 d 4 h`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match seconds {
        seconds if seconds < 0.001 => format!("{:.2} ms", seconds * 1e3),
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        _ => whole_seconds(whole),
    }
}

/// Returns an age: `5 s ago`.
pub(super) fn age(seconds: f64) -> String {
    format!("{} ago", whole_seconds(seconds.max(0.0) as u64))
}

/// Returns a duration of whole seconds.
pub(super) fn whole_seconds(seconds: u64) -> String {
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// Returns a time of day, with the date and all digits for programs and as a tooltip.
pub(super) fn time(at: Timestamp) -> Markup {
    let whole = at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    html! { time datetime=(whole) title=(whole) { (at.strftime("%H:%M:%S")) } }
}

/// Returns a date and time of day.
pub(super) fn date(at: Timestamp) -> Markup {
    let whole = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    html! { time datetime=(whole) { (at.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// Returns `1 warning`, `2 warnings`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups_of_three_digits() {
        let rows =
            [(0, "0"), (9999, "9999"), (10_000, "10\u{202f}000"), (1_234_567, "1\u{202f}234\u{202f}567")];
        for (value, expected) in rows {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn durations_have_two_parts() {
        let rows = [
            (0.000_35, "0.35 ms"),
            (0.0123, "12.3 ms"),
            (0.25, "250 ms"),
            (1.25, "1.2 s"),
            (59.9, "59 s"),
            (60.0, "1 min"),
            (185.0, "3 min 5 s"),
            (3600.0, "1 h"),
            (7_500.0, "2 h 5 min"),
            (187_200.0, "2 d 4 h"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
        assert_eq!(age(0.4), "0 s ago");
        assert_eq!(age(-3.0), "0 s ago");
    }
}
