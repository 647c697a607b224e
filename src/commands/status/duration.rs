//! Durations for people.

/// Formats a duration with its largest two units: `0.4 s`, `12 s`, `5 min 2 s`, `3 h 4 min`, `2 d 7 h`.
pub(super) fn format(seconds: f64) -> String {
    // A negative or infinite duration is 0 or the largest one.
    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match () {
        () if days > 0 => two(days, "d", hours % 24, "h"),
        () if hours > 0 => two(hours, "h", minutes % 60, "min"),
        () if minutes > 0 => two(minutes, "min", whole % 60, "s"),
        () if whole > 0 => format!("{whole} s"),
        () => format!("{:.1} s", seconds.max(0.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_shown() {
        let rows = [
            (-1.0, "0.0 s"),
            (0.42, "0.4 s"),
            (12.9, "12 s"),
            (60.0, "1 min"),
            (302.0, "5 min 2 s"),
            (11_040.0, "3 h 4 min"),
            (198_000.0, "2 d 7 h"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(format(seconds), expected);
        }
    }
}
