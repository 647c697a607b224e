//! Parsers of numbers and booleans with the rules of Go's `strconv`, which kube-proxy's flag library uses.

/// Parses like Go's `strconv.ParseBool`: exactly its twelve spellings.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Parses like Go's `strconv.ParseInt` with base 0: decimal, `0x`, `0o`, `0b`, and a leading `0` for octal; digits
/// may be separated by `_`.
pub(super) fn parse_integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // `from_str_radix` would accept a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit() || c == '_')
        || digits.ends_with('_')
        || digits.contains("__")
    {
        return None;
    }
    let value = i128::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

/// Parses a Kubernetes resource quantity into bytes: `512`, `1K` (1,000), `2Ki` (2,048), `3M`, `4Gi`, `1e3`.
///
/// Only buffer sizes are accepted: not negative, and rounded up to whole bytes, as Kubernetes does.
pub(super) fn parse_quantity(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("", 1.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("K", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
    ];
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        Some((_, factor)) => *factor,
        None => 10_f64.powi(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let bytes = (number * factor).ceil();
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        let rows = [
            ("0", Some(0)),
            ("14", Some(14)),
            ("-999", Some(-999)),
            ("+7", Some(7)),
            ("0x1F", Some(31)),
            ("0b101", Some(5)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("1_000", Some(1000)),
            ("", None),
            ("-", None),
            ("--1", None),
            ("0x", None),
            ("1__0", None),
            ("1_", None),
            ("ten", None),
            ("1.0", None),
            ("9223372036854775808", None),
        ];
        for (text, value) in rows {
            assert_eq!(parse_integer(text), value, "{text:?}");
        }
    }

    #[test]
    fn quantities() {
        let rows = [
            ("0", Some(0)),
            ("512", Some(512)),
            ("1K", Some(1000)),
            ("2Ki", Some(2048)),
            ("1.5Mi", Some(1_572_864)),
            ("1e3", Some(1000)),
            ("100m", Some(1)),
            ("", None),
            ("-1", None),
            ("Ki", None),
            ("1X", None),
            ("1e", None),
            ("1e99", None),
        ];
        for (text, value) in rows {
            assert_eq!(parse_quantity(text), value, "{text:?}");
        }
    }

    #[test]
    fn booleans() {
        for (text, value) in
            [("true", Some(true)), ("T", Some(true)), ("0", Some(false)), ("yes", None), ("", None)]
        {
            assert_eq!(parse_bool(text), value, "{text:?}");
        }
    }
}
