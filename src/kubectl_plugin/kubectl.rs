//! Runs kubectl.

use std::process::{Child, Command, Stdio};

use portcullis_modes::external_program::{ExternalProgram, ProgramError};

use super::arguments::Arguments;

/// The program, found on `PATH`.
const KUBECTL: &str = "kubectl";

/// kubectl failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum KubectlError {
    /// It could not be run to its end.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It cannot be started.
    #[error("cannot run kubectl: {0}")]
    Start(std::io::Error),
    /// It reported an error.
    #[error("{0}")]
    Failed(String),
    /// Its output is not what it should be.
    #[error("unexpected output of kubectl: {0}")]
    Unexpected(serde_json::Error),
}

/// Runs kubectl, and returns its output.
///
/// # Errors
/// It failed.
pub(super) fn output(arguments: &Arguments, command: &[&str]) -> Result<String, KubectlError> {
    let (text, error) = output_and_status(arguments, command)?;
    match error {
        None => Ok(text),
        Some((_, message)) => Err(KubectlError::Failed(message)),
    }
}

/// The exit status and the message of a command that failed.
pub(super) type Failure = (Option<i32>, String);

/// Runs kubectl, and returns its output, also if it failed.
///
/// # Errors
/// It could not be run to its end.
pub(super) fn output_and_status(
    arguments: &Arguments,
    command: &[&str],
) -> Result<(String, Option<Failure>), KubectlError> {
    let flags = arguments.kubectl_flags.iter().map(String::as_str);
    let program = ExternalProgram::new(KUBECTL).with_arguments(flags.chain(command.iter().copied()));
    let mut text = String::new();
    let end = program.read_lines(&mut |line| {
        text.push_str(line.trim_end_matches('\n'));
        text.push('\n');
    })?;
    let failure = (!end.status.success()).then(|| {
        let message = match without_log_lines(&end.message).trim() {
            "" => format!("kubectl failed ({})", end.status),
            message => message.to_owned(),
        };
        (end.status.code(), message)
    });
    Ok((text, failure))
}

/// Returns the message of a kubectl that failed, without the lines of its log (`E1201 01:11:22.990708 … memcache.go:265] …`), of which it
/// writes one for each attempt before the message.
fn without_log_lines(message: &str) -> String {
    let is_log = |line: &str| {
        let mut parts = line.split(' ');
        let level = parts.next().and_then(|level| level.strip_prefix(['I', 'W', 'E', 'F']));
        level.is_some_and(|date| date.len() == 4 && date.bytes().all(|byte| byte.is_ascii_digit()))
            && parts.next().is_some_and(|time| time.split(':').count() == 3)
    };
    let lines: Vec<&str> = message.lines().filter(|line| !is_log(line)).collect();
    if lines.iter().all(|line| line.trim().is_empty()) { message.to_owned() } else { lines.join("\n") }
}

/// Starts kubectl with these streams.
///
/// # Errors
/// It cannot be started.
pub(super) fn start(
    arguments: &Arguments,
    command: &[String],
    stdin: Stdio,
    stdout: Stdio,
) -> Result<Child, KubectlError> {
    let mut kubectl = Command::new(KUBECTL);
    kubectl.args(&arguments.kubectl_flags).args(command).stdin(stdin).stdout(stdout);
    kubectl.spawn().map_err(KubectlError::Start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_lines_of_the_log_unless_there_is_nothing_else() {
        let log =
            "E1201 01:11:22.990708    6087 memcache.go:265] \"Unhandled Error\" err=\"connection refused\"";
        let message = "The connection to the server localhost:8080 was refused";
        for (printed, expected) in [
            (format!("{log}\n{log}\n{message}\n"), message),
            (format!("{log}\n"), &format!("{log}\n")),
            (
                "Error from server (NotFound): E1201 not found".to_owned(),
                "Error from server (NotFound): E1201 not found",
            ),
            (String::new(), ""),
        ] {
            assert_eq!(without_log_lines(&printed), expected);
        }
    }
}
