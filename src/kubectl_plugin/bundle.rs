//! `kubectl portcullis bundle`: the support archive of a node, with the log of its pod, as a local file.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use super::PluginError;
use super::arguments::Arguments;
use super::exec;
use super::kubectl::{self, KubectlError};
use super::pods::DaemonPod;

/// The part of the log that the archive gets.
const LOG_LIMITS: [&str; 2] = ["--tail=20000", "--limit-bytes=16777216"];

/// Writes the archive to the file of `--output`, or to standard output.
///
/// # Errors
/// kubectl cannot be started, or the file cannot be written.
pub(super) fn run(arguments: &Arguments, pod: &DaemonPod) -> Result<ExitCode, PluginError> {
    let (output, mut rest) = take_output(&arguments.command_arguments);
    rest.extend(["--output=-".to_owned(), "--log-file=-".to_owned()]);
    let command = pod.exec_arguments("bundle", &rest, true);
    let path = output.unwrap_or_else(|| PathBuf::from(format!("{}.tar.gz", pod.name)));
    if path == Path::new("-") {
        return stream(arguments, pod, &command, Stdio::inherit());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| PluginError::File { path, source }
    };
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let file = file.map_err(failed(&partial))?;
    let result = stream(arguments, pod, &command, file.into());
    // Without an archive the command has status 2; one that was cut off has no end.
    let is_written = result.is_ok() && is_complete(&partial);
    if !is_written {
        fs::remove_file(&partial).map_err(failed(&partial))?;
        return result.map(|_| ExitCode::from(crate::FAILED));
    }
    fs::rename(&partial, &path).map_err(failed(&path))?;
    crate::logging::final_message(&format!("{}: wrote {}", super::NAME, path.display()));
    result
}

/// Runs the command with the log of the pod as its input.
fn stream(
    arguments: &Arguments,
    pod: &DaemonPod,
    command: &[String],
    stdout: Stdio,
) -> Result<ExitCode, PluginError> {
    let mut log = vec!["logs".to_owned(), format!("--namespace={}", pod.namespace), pod.name.clone()];
    log.push(format!("--container={}", pod.container));
    log.extend(LOG_LIMITS.map(str::to_owned));
    let mut log = kubectl::start(arguments, &log, Stdio::null(), Stdio::piped())?;
    let input = log.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let status = kubectl::start(arguments, command, input, stdout)
        .and_then(|mut child| child.wait().map_err(KubectlError::Start));
    // It has ended, or nothing reads what it prints.
    let _ = log.kill();
    let _ = log.wait();
    Ok(exec::exit_code(status?))
}

/// Returns true if a file is a whole archive.
fn is_complete(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    std::io::copy(&mut flate2::read::GzDecoder::new(file), &mut std::io::sink()).is_ok_and(|bytes| bytes > 0)
}

/// Returns the value of `-o` or `--output`, and the other arguments.
fn take_output(arguments: &[String]) -> (Option<PathBuf>, Vec<String>) {
    let (mut output, mut rest) = (None, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-o" | "--output" => output = words.next().map(PathBuf::from),
            word => match word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")) {
                Some(path) => output = Some(PathBuf::from(path.trim_start_matches('='))),
                None => rest.push(word.to_owned()),
            },
        }
    }
    (output, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_a_local_file() {
        for line in [
            "-o a.gz --unit x",
            "--unit x --output a.gz",
            "--output=a.gz --unit x",
            "-oa.gz --unit x",
            "-o=a.gz --unit x",
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (output, rest) = take_output(&words);
            assert_eq!(
                (output, rest.join(" ")),
                (Some(PathBuf::from("a.gz")), "--unit x".to_owned()),
                "{line}"
            );
        }
    }
}
