//! Text that looks like a secret.

use regex::{Captures, Regex};

use super::REDACTED;

/// Text before and after a secret, which stays, and the secret between. Groups: `before`, `after`; both may be missing.
pub(super) struct Pattern(Regex);

/// Words in the name of a field, flag, header or variable whose value is a secret.
pub(super) const SENSITIVE: &str = "passw(?:or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|\
    client[-_]?key|credential|cookie|authorization|(?:certificate[-_]?authority|client[-_]?certificate)[-_]?data";

/// Returns all patterns.
pub(super) fn all() -> Vec<Pattern> {
    let sources = [
        // A certificate or key, also in one line with escaped newlines; without an end, up to the end of the text.
        r"(?s)-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\z)".to_owned(),
        // The same in base64: `-----BEGIN`.
        r"LS0tLS1CRUdJTi[A-Za-z0-9+/_-]*={0,2}".to_owned(),
        // JSON web tokens, such as those of service accounts.
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?".to_owned(),
        // Tokens in headers.
        r"(?i)(?P<before>\b(?:bearer|basic)\s+)[A-Za-z0-9+/._~=-]{6,}".to_owned(),
        // User and password in URLs.
        r#"(?P<before>\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@"'<>]+(?P<after>@)"#.to_owned(),
        // `password: …`, `"token": "…"`, `API_KEY=…`, `?token=…`, `Authorization: …`. Names of objects (`shop/token-issuer:http`)
        // are no fields, hence the character before.
        format!(
            r#"(?i)(?P<before>(?:^|[^/\w.-])["']?[\w.-]*(?:{SENSITIVE})[\w-]*["'\\]*\s*[:=]\s*)(?:"(?:[^"\\]|\\.)*"|\\"(?:[^"\\]|\\[^"])*\\"|'[^']*'|[^\s"',;&}}\])]+)"#
        ),
        // `--token …`.
        format!(r#"(?i)(?P<before>(?:^|\s)--?[\w-]*(?:{SENSITIVE})[\w-]*\s+)[^\s"'-][^\s"']*"#),
        // A manifest in an annotation or a message has all fields of the object.
        r#"(?P<before>last-applied-configuration["\\]*\s*[:=]\s*)[^\n]*"#.to_owned(),
    ];
    sources.iter().map(|source| Pattern(Regex::new(source).expect("the patterns are constants"))).collect()
}

impl Pattern {
    /// Replaces each match but its group `before` and `after`.
    pub(super) fn redact(&self, text: &str, count: &mut usize) -> String {
        let replaced = self.0.replace_all(text, |found: &Captures<'_>| {
            let group = |name| found.name(name).map_or("", |group| group.as_str());
            let (before, after) = (group("before"), group("after"));
            let secret = &found[0][before.len()..found[0].len() - after.len()];
            if secret.trim_matches(['"', '\'', '\\']) == REDACTED {
                return found[0].to_owned();
            }
            *count += 1;
            // Quotes stay, so that JSON stays JSON.
            let quote = if secret.starts_with(r#"\""#) {
                r#"\""#
            } else if secret.starts_with('"') {
                "\""
            } else {
                ""
            };
            format!("{before}{quote}{REDACTED}{quote}{after}")
        });
        replaced.into_owned()
    }
}
