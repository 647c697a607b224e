//! Labs that outlive the command that started them: `lab up`, `lab exec`, `lab apply`, `lab down`.
//!
//! `up` starts a background process, which owns the lab and listens on a socket in the lab's folder.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster_objects::ClusterObjects;
use crate::error::{Error, Result};
use crate::lab_record::LabRecord;
use crate::netns::NetNs;
use crate::pod_network::PodNetworkMode;
use crate::reaper::Reaper;
use crate::running::{Lab, LabOptions};
use crate::signals;

/// Exit codes of a shell for a command that it cannot run.
const NO_SUCH_COMMAND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// The lab to build, sent to the standard input of the background process.
#[derive(Debug, Serialize, Deserialize)]
struct UpRequest {
    name: Option<String>,
    folder: PathBuf,
    options: LabOptions,
    sync_timeout: Duration,
}

/// The single line that the background process writes to its standard output.
#[derive(Debug, Serialize, Deserialize)]
enum UpResponse {
    Ready(LabRecord),
    Failed(String),
}

/// Builds a lab that outlives this process. `server` is a command that calls [`serve`], e.g. this program with a hidden
/// subcommand.
///
/// # Errors
/// The lab cannot be built; then nothing of it remains.
pub fn up(
    folder: impl AsRef<Path>,
    options: &LabOptions,
    sync_timeout: Duration,
    server: Command,
) -> Result<LabRecord> {
    up_named(None, folder, options, sync_timeout, server)
}

/// Builds a lab with a chosen name that outlives this process; see [`crate::check_name`].
///
/// # Errors
/// As [`up`], and when a lab of that name exists.
pub fn up_named(
    name: Option<&str>,
    folder: impl AsRef<Path>,
    options: &LabOptions,
    sync_timeout: Duration,
    mut server: Command,
) -> Result<LabRecord> {
    let folder = folder.as_ref();
    let folder = folder.canonicalize().map_err(Error::file("cannot read", folder))?;
    let request = UpRequest { name: name.map(str::to_owned), folder, options: options.clone(), sync_timeout };
    // A process group of its own: Ctrl-C in the terminal must not end the lab.
    server.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |message: String| Error::Background(message);
    let mut child = server.spawn().map_err(|error| failed(error.to_string()))?;
    let text = serde_json::to_vec(&request).map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(&text).map_err(|error| failed(error.to_string()))?;
    drop(stdin);
    let mut line = String::new();
    let stdout = child.stdout.take().expect("standard output is piped");
    BufReader::new(stdout).read_line(&mut line).map_err(|error| failed(error.to_string()))?;
    match serde_json::from_str(&line) {
        Ok(UpResponse::Ready(record)) => Ok(record),
        Ok(UpResponse::Failed(message)) => {
            // The process exits after this response; its status adds nothing.
            let _ = child.wait();
            Err(failed(message))
        }
        Err(_) => {
            let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(failed(format!("exited with {status} before the lab was ready")))
        }
    }
}

/// Runs the background process: builds the lab described on standard input, and serves requests until [`down`] or a
/// signal. Must be called from `main` before any thread is started.
///
/// # Errors
/// The request is malformed, or the lab cannot be removed.
pub fn serve() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| Error::Background(error.to_string()))?;
    let request: UpRequest =
        serde_json::from_str(&text).map_err(|error| Error::Background(error.to_string()))?;
    let signals = signals::block()?;
    let (mut lab, listener) = match build(&request) {
        Ok(built) => built,
        Err(error) => {
            write_response(&UpResponse::Failed(error.to_string()));
            return Err(error);
        }
    };
    let reaper = lab.reaper();
    signals.watch(move || {
        // No client is connected, and standard error is closed.
        let _ = reaper.finish();
    })?;
    write_response(&UpResponse::Ready(lab.record().clone()));
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            continue;
        }
        let result = match line.trim_end().split_once(' ') {
            Some(("apply", folder)) => apply_folder(&mut lab, Path::new(folder), request.sync_timeout),
            _ if line == "down\n" => {
                let result = lab.down();
                write_result(&mut stream, &result);
                return result;
            }
            _ => Err(Error::Background(format!("unknown request {line:?}"))),
        };
        write_result(&mut stream, &result);
    }
    Ok(())
}

fn build(request: &UpRequest) -> Result<(Lab, UnixListener)> {
    let mut lab = Lab::up_named(
        request.name.as_deref(),
        ClusterObjects::read(&request.folder)?,
        request.options.clone(),
    )?;
    lab.wait_synced(request.sync_timeout)?;
    let control = lab.folder().join("control");
    let listener = UnixListener::bind(&control).map_err(Error::file("cannot listen at", control))?;
    Ok((lab, listener))
}

fn apply_folder(lab: &mut Lab, folder: &Path, sync_timeout: Duration) -> Result<()> {
    let objects = ClusterObjects::read(folder)?;
    lab.update(|cluster| *cluster = objects)?;
    lab.wait_synced(sync_timeout)
}

fn write_response(response: &UpResponse) {
    let line = serde_json::to_string(response).expect("a response has only strings for keys");
    // The process that ran `lab up` may have exited; the lab stays up.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn write_result(stream: &mut UnixStream, result: &Result<()>) {
    let text = match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    // The client may have exited.
    let _ = stream.write_all(text.as_bytes());
}

/// Sends a request to the background process of a lab; `None` if it does not run.
fn send_request(lab: &LabRecord, request: &str) -> Option<Result<()>> {
    let mut stream = UnixStream::connect(lab.folder.join("control")).ok()?;
    let mut response = String::new();
    let exchanged = writeln!(stream, "{request}").and_then(|()| stream.read_to_string(&mut response));
    Some(match (exchanged, response.as_str()) {
        (Ok(_), "ok") => Ok(()),
        (Ok(_), "") => Err(Error::Background("exited before it responded".into())),
        (Ok(_), message) => Err(Error::Background(message.to_owned())),
        (Err(error), _) => Err(Error::Background(error.to_string())),
    })
}

/// Updates a lab to the current manifests of a folder, and waits until the daemons have synced. `id` as in
/// [`LabRecord::find`].
///
/// # Errors
/// No such lab, or no cluster can be made from the manifests.
pub fn apply(id: Option<&str>, folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    let folder = folder.canonicalize().map_err(Error::file("cannot read", folder))?;
    let lab = LabRecord::find(id)?;
    let not_running =
        || Err(Error::Background(format!("not running; `lab down` removes what remains of lab {}", lab.id)));
    send_request(&lab, &format!("apply {}", folder.display())).unwrap_or_else(not_running)
}

/// Runs a command in a pod, on a node, or outside, with this process's input and output. Returns the exit code as a shell
/// reports it: the command's own, 128 plus the number of the signal that ended it, 127 if there is no such command, 126
/// if it cannot be executed. `id` as in [`LabRecord::find`].
///
/// # Errors
/// No such lab, pod or node, or no command is given.
pub fn exec(id: Option<&str>, location: &str, command: &[String]) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt;

    let lab = LabRecord::find(id)?;
    let netns = NetNs::new(lab.netns_name(location)?);
    let failed = |message: String| Error::Command { command: command.join(" "), message };
    let (program, arguments) =
        command.split_first().ok_or_else(|| failed("expected a command after `--`".into()))?;
    let mut command = Command::new(program);
    netns.enter_with(command.args(arguments))?;
    match command.status() {
        Ok(status) => Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))),
        Err(error) => {
            eprintln!("portcullis lab exec: {program}: {error}");
            Ok(if error.kind() == ErrorKind::NotFound { NO_SUCH_COMMAND } else { NOT_EXECUTABLE })
        }
    }
}

/// Runs `explain` of the program that runs on the nodes, with the objects and settings of the daemons. Returns the exit code as
/// [`exec`] does. `id` as in [`LabRecord::find`].
///
/// # Errors
/// No such lab, or its nodes run no daemon.
pub fn explain(id: Option<&str>, arguments: &[String]) -> Result<i32> {
    let lab = LabRecord::find(id)?;
    let daemon = lab.daemon.as_ref().ok_or_else(|| Error::Background("its nodes run no daemon".into()))?;
    let node = lab.nodes().next().ok_or_else(|| Error::Background("it has no nodes".into()))?.to_owned();
    let mut command = vec![daemon.binary.display().to_string(), "explain".to_owned()];
    command.extend(["--manifests".to_owned(), lab.folder.join("manifests").display().to_string()]);
    command.extend(["--hostname-override".to_owned(), node.clone()]);
    command.extend(daemon.args.iter().cloned());
    command.extend(daemon.pod_network.into_iter().flat_map(PodNetworkMode::settings));
    command.extend(arguments.iter().cloned());
    exec(Some(&lab.id), &node, &command)
}

/// Removes a lab, also one whose background process has exited. `id` as in [`LabRecord::find`].
///
/// # Errors
/// No such lab, or part of it cannot be removed.
pub fn down(id: Option<&str>) -> Result<LabRecord> {
    let lab = LabRecord::find(id)?;
    match send_request(&lab, "down") {
        Some(result) => result?,
        None => Reaper::start(&lab.prefix, &lab.folder)?.finish()?,
    }
    Ok(lab)
}
