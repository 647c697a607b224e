//! Formatting of an error with its causes.

use std::error::Error;

/// Formats an error and its causes, separated by colons. A cause that the text already has is left out, as many errors
/// include their cause in their own message. URLs lose their user and password: errors of clients contain those of proxies.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    without_url_users(&text)
}

/// Replaces the user and password of all URLs in a text by `…`.
pub(crate) fn without_url_users(text: &str) -> String {
    let ends_authority = |c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '<' | '>');
    let mut parts = text.split("://");
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority = &part[..part.find(ends_authority).unwrap_or(part.len())];
        replaced.push_str("://");
        let at = authority.rfind('@');
        replaced.push_str(if at.is_some() { "…" } else { "" });
        replaced.push_str(&part[at.unwrap_or(0)..]);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::cluster_view::LoadError;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Bare(#[source] io::Error);

    #[test]
    fn urls_lose_their_user_and_password() {
        for (text, expected) in [
            ("no URL, a@b", "no URL, a@b"),
            ("https://10.0.0.1:6443/a@b", "https://10.0.0.1:6443/a@b"),
            (
                "cannot reach https://root:p@ss@[::1]:6443/x: proxy \"http://u@h\"",
                "cannot reach https://…@[::1]:6443/x: proxy \"http://…@h\"",
            ),
        ] {
            assert_eq!(without_url_users(text), expected);
            assert_eq!(describe(&io::Error::other(text)), expected);
        }
    }

    #[test]
    fn each_cause_occurs_once() {
        let denied = || io::Error::other("permission denied");
        assert_eq!(describe(&Bare(denied())), "cannot start: permission denied");
        // Its message names its cause.
        let error = portcullis_lab::Error::System { action: "cannot bind".into(), source: denied() };
        assert_eq!(describe(&error), "cannot bind: permission denied");
        let error = LoadError::NodeName(denied());
        assert_eq!(describe(&error), "cannot determine this node's name: permission denied");
    }
}
