//! The usage of the plugin, for users that run it by hand.

use std::io::Write;
use std::process::ExitCode;

use super::verb::Verb;
use super::version::CniVersion;

/// The exit status of a run without a request.
const NO_REQUEST: u8 = 2;

/// Prints the usage of the plugin, which was run without `CNI_COMMAND`, and returns the exit status.
pub fn usage(mut stderr: impl Write) -> ExitCode {
    let (verbs, versions) = (Verb::ALL.map(Verb::name).join(", "), CniVersion::names().join(", "));
    let text = format!(
        "portcullis: this is the CNI plugin, which container runtimes run with a request in CNI_COMMAND; CNI_COMMAND is not set.\n\
         Requests:      {verbs}\n\
         CNI versions:  {versions}\n\
         Configuration: on standard input\n\
         The daemon and its commands are the program `portcullis` of the image or package, not this copy of it.\n"
    );
    // Without standard error, the exit status says it.
    let _ = stderr.write_all(text.as_bytes());
    ExitCode::from(NO_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_names_requests_and_versions() {
        let mut text = Vec::new();
        assert_eq!(usage(&mut text), ExitCode::from(2));
        let text = String::from_utf8(text).expect("text");
        for part in ["CNI_COMMAND is not set", "ADD, DEL, CHECK", "1.1.0"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
