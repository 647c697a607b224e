//! Port names.

use crate::name::Name;
use crate::problem::Problem;

/// A description of valid port names.
pub(crate) const PORT_NAME: &str =
    "a port's name: up to 15 lower-case letters, digits and hyphens, at least one letter";

/// Parses a port name (RFC 6335; API machinery, `IsValidPortName`).
pub(crate) fn parse(text: &str) -> Option<Name> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = text.len() <= 15
        && text.bytes().all(allowed)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    valid.then(|| Name::new(text))
}

/// Parses the name of a Service port, which its EndpointSlices have as well; empty if it has none. Any text of letters, digits,
/// hyphens, underscores and dots is accepted, as it is safe in a line of rules or logs.
pub(crate) fn parse_service_port_name(
    name: Option<&str>,
    field: String,
    problems: &mut Vec<Problem>,
) -> Option<Name> {
    let name = name.unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() <= 63 && name.bytes().all(allowed) {
        return Some(Name::new(name));
    }
    problems.push(Problem::new(
        field,
        name,
        "a port's name: up to 63 lower-case letters, digits and hyphens",
    ));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_are_validated() {
        for (text, expected) in [
            ("http", true),
            ("serve-80-tcp", true),
            ("8a", true),
            ("80", false),
            ("", false),
            ("HTTP", false),
            ("-a", false),
            ("a-", false),
            ("a--b", false),
            ("sixteen-letters-", false),
            ("a_b", false),
        ] {
            assert_eq!(parse(text).is_some(), expected, "{text}");
        }
    }
}
