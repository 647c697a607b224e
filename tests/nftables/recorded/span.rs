//! Parsing of time spans as `nft` prints them: `3h`, `1h10m42s`, `500ms`.

/// The units that `nft` prints, with their lengths in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Returns a time span in milliseconds.
///
/// # Panics
/// If the text is not a time span.
pub fn milliseconds(text: &str) -> u64 {
    let (mut sum, mut rest) = (0, text);
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(char::is_alphabetic).unwrap_or(rest.len()));
        let (unit, behind) =
            behind.split_at(behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len()));
        let length = UNITS.iter().find(|(name, _)| *name == unit);
        let (Some((_, length)), Ok(number)) = (length, number.parse::<u64>()) else {
            panic!("{text} is not a time span")
        };
        sum += number * length;
        rest = behind;
    }
    sum
}

pub fn spans_may_have_several_units() {
    let rows = [
        ("3h", 10_800_000),
        ("1h10m42s", 4_242_000),
        ("1d", 86_400_000),
        ("2d3h4m5s6ms", 183_845_006),
        ("500ms", 500),
        ("1m", 60_000),
        ("0s", 0),
    ];
    for (text, expected) in rows {
        assert_eq!(milliseconds(text), expected, "{text}");
    }
}
