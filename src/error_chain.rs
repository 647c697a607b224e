//! Formatting of an error with its causes.

use std::error::Error;

/// Formats an error and its causes, separated by colons. A cause that the text already has is left out, as many errors
/// include their cause in their own message.
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
    text
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
