//! An error with its causes, in one line.

use std::error::Error;

/// The error and all its causes, separated by colons. A cause whose words are there already is left out: many errors name
/// their cause in their own message.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
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
    fn every_cause_is_named_once() {
        let refused = || io::Error::other("permission denied");
        assert_eq!(describe(&Bare(refused())), "cannot start: permission denied");
        // Its message names its cause.
        let error = portcullis_lab::Error::System { doing: "cannot bind".into(), source: refused() };
        assert_eq!(describe(&error), "cannot bind: permission denied");
        let error = LoadError::NodeName(refused());
        assert_eq!(describe(&error), "cannot tell this node's name: permission denied");
    }
}
