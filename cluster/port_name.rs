//! Names of ports.

use crate::name::Name;
use crate::problem::Problem;

/// What a port's name looks like.
pub(crate) const PORT_NAME: &str =
    "a port's name: up to 15 lower-case letters, digits and hyphens, a letter among them";

/// Reads a port's name (RFC 6335; API machinery, `IsValidPortName`). Other texts name no port of any pod.
pub(crate) fn read(text: &str) -> Option<Name> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = text.len() <= 15
        && text.bytes().all(allowed)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    valid.then(|| Name::new(text))
}

/// The name of a Service's port, which also stands in its EndpointSlices; empty where it has none. Any text of
/// letters, digits, hyphens, underscores and dots is a name here: it must only be fit for a line of rules or logs.
pub(crate) fn of_service(name: Option<&str>, field: String, problems: &mut Vec<Problem>) -> Option<Name> {
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
    fn names_are_told_from_other_texts() {
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
            assert_eq!(read(text).is_some(), expected, "{text}");
        }
    }
}
