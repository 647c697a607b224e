//! The error output of an exec plugin, as it is shown.

/// The number of characters of error output that are shown.
const MAX_SHOWN: usize = 400;

/// The length from which a word that could be a token or key is not shown.
const SECRET: usize = 40;

/// Returns the end of a plugin's error output on one line. Words that could be a token or a key are left out, as a plugin may print
/// what it received from an identity provider.
pub(super) fn shortened(text: &str) -> String {
    let words = text.split_whitespace().map(without_secrets).collect::<Vec<_>>().join(" ");
    let count = words.chars().count();
    if count <= MAX_SHOWN {
        return words.chars().filter(|character| !character.is_control()).collect();
    }
    let end = words.chars().skip(count - MAX_SHOWN).filter(|character| !character.is_control());
    std::iter::once('…').chain(end).collect()
}

/// Replaces the parts of a word that could be a token or a key.
fn without_secrets(word: &str) -> String {
    let is_of_secret = |character: char| character.is_ascii_alphanumeric() || "+/_=.-".contains(character);
    let mut shown = String::with_capacity(word.len());
    for part in word.split_inclusive(|character| !is_of_secret(character)) {
        let text = part.trim_end_matches(|character| !is_of_secret(character));
        // Paths and the rest of URLs begin with a slash.
        if text.len() >= SECRET && !text.starts_with('/') {
            shown.push_str("[not shown]");
            shown.push_str(&part[text.len()..]);
        } else {
            shown.push_str(part);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_output_is_shown_without_tokens() {
        let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJl";
        let url = "https://sts.eu-central-1.amazonaws.com/a/long/path/of/an/identity/provider";
        let rows = [
            ("", String::new()),
            ("session expired\n  run login\n", "session expired run login".into()),
            (&format!("got token=\"{token}\", rejected"), "got token=\"[not shown]\", rejected".into()),
            (&format!("Bearer {token}"), "Bearer [not shown]".into()),
            (&format!("cannot reach {url}"), format!("cannot reach {url}")),
            ("\x1b[31mred\x1b[0m", "[31mred[0m".into()),
            (&"é ".repeat(1_000), format!("…{}", " é".repeat(MAX_SHOWN / 2))),
        ];
        for (text, expected) in rows {
            assert_eq!(shortened(text), expected, "{text}");
        }
    }
}
