//! `lab up`, `lab exec`, `lab apply`, `lab down`: a lab that outlives the command which made it.
//!
//! `up` starts a second process, the keeper, which owns the lab and listens on a socket in the lab's folder.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::netns::NetNs;
use crate::reaper::Reaper;
use crate::running::{Lab, LabOptions};
use crate::state::LabState;

/// The exit codes of a shell for a command that it cannot run.
const NO_SUCH_COMMAND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What the keeper is to build; it comes on its standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    name: Option<String>,
    folder: PathBuf,
    options: LabOptions,
    sync_timeout: Duration,
}

/// The one line that the keeper says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Ready(LabState),
    Failed(String),
}

/// Builds a lab that stays. `keeper` is a command that ends in [`keep`], e.g. this program with a hidden subcommand.
///
/// # Errors
/// Whatever kept the lab from being built; then nothing is left of it.
pub fn up(
    folder: impl AsRef<Path>,
    options: &LabOptions,
    sync_timeout: Duration,
    keeper: Command,
) -> Result<LabState> {
    up_named(None, folder, options, sync_timeout, keeper)
}

/// Builds a lab that stays, with a name of the caller's choice; see [`crate::check_name`].
///
/// # Errors
/// As [`up`], and when there is a lab of that name.
pub fn up_named(
    name: Option<&str>,
    folder: impl AsRef<Path>,
    options: &LabOptions,
    sync_timeout: Duration,
    mut keeper: Command,
) -> Result<LabState> {
    let folder = folder.as_ref();
    let folder = folder.canonicalize().map_err(Error::file("cannot read", folder))?;
    let request = Request { name: name.map(str::to_owned), folder, options: options.clone(), sync_timeout };
    // A process group of its own: Ctrl-C in the terminal must not end the lab.
    keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |message: String| Error::Keeper(message);
    let mut child = keeper.spawn().map_err(|error| failed(error.to_string()))?;
    let text = serde_json::to_vec(&request).map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(&text).map_err(|error| failed(error.to_string()))?;
    drop(stdin);
    let mut line = String::new();
    let stdout = child.stdout.take().expect("standard output is piped");
    BufReader::new(stdout).read_line(&mut line).map_err(|error| failed(error.to_string()))?;
    match serde_json::from_str(&line) {
        Ok(Answer::Ready(state)) => Ok(state),
        Ok(Answer::Failed(message)) => {
            // It has said why it ends, and is about to.
            let _ = child.wait();
            Err(failed(message))
        }
        Err(_) => {
            let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(failed(format!("ended with {status} before the lab was ready")))
        }
    }
}

/// The keeper: builds the lab that standard input asks for, and holds it until [`down`] or a signal. To be called from
/// `main` before any thread is started.
///
/// # Errors
/// When the request is malformed, or the lab cannot be taken down.
pub fn keep() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| Error::Keeper(error.to_string()))?;
    let request: Request = serde_json::from_str(&text).map_err(|error| Error::Keeper(error.to_string()))?;
    let signals = interrupt::block()?;
    let (mut lab, listener) = match build(&request) {
        Ok(built) => built,
        Err(error) => {
            say(&Answer::Failed(error.to_string()));
            return Err(error);
        }
    };
    let reaper = lab.reaper();
    signals.watch(move || {
        // There is no one left to tell.
        let _ = reaper.finish();
    })?;
    say(&Answer::Ready(lab.state().clone()));
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut order = String::new();
        if BufReader::new(&stream).read_line(&mut order).is_err() {
            continue;
        }
        let done = match order.trim_end().split_once(' ') {
            Some(("apply", folder)) => apply_folder(&mut lab, Path::new(folder), request.sync_timeout),
            _ if order == "down\n" => {
                let done = lab.down();
                reply(&mut stream, &done);
                return done;
            }
            _ => Err(Error::Keeper(format!("does not know the order {order:?}"))),
        };
        reply(&mut stream, &done);
    }
    Ok(())
}

fn build(request: &Request) -> Result<(Lab, UnixListener)> {
    let mut lab =
        Lab::up_named(request.name.as_deref(), Cluster::read(&request.folder)?, request.options.clone())?;
    lab.wait_synced(request.sync_timeout)?;
    let control = lab.folder().join("control");
    let listener = UnixListener::bind(&control).map_err(Error::file("cannot listen at", control))?;
    Ok((lab, listener))
}

fn apply_folder(lab: &mut Lab, folder: &Path, sync_timeout: Duration) -> Result<()> {
    let fresh = Cluster::read(folder)?;
    lab.update(|cluster| *cluster = fresh)?;
    lab.wait_synced(sync_timeout)
}

fn say(answer: &Answer) {
    let line = serde_json::to_string(answer).expect("an answer has only text for keys");
    // Whoever started the keeper may be gone, which ends nothing.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn reply(stream: &mut UnixStream, done: &Result<()>) {
    let text = match done {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    // Whoever asked may be gone.
    let _ = stream.write_all(text.as_bytes());
}

/// Gives an order to the keeper of a lab; `None` when there is no keeper.
fn order(lab: &LabState, order: &str) -> Option<Result<()>> {
    let mut stream = UnixStream::connect(lab.folder.join("control")).ok()?;
    let mut answer = String::new();
    let asked = writeln!(stream, "{order}").and_then(|()| stream.read_to_string(&mut answer));
    Some(match (asked, answer.as_str()) {
        (Ok(_), "ok") => Ok(()),
        (Ok(_), "") => Err(Error::Keeper("ended before it answered".into())),
        (Ok(_), message) => Err(Error::Keeper(message.to_owned())),
        (Err(error), _) => Err(Error::Keeper(error.to_string())),
    })
}

/// Makes a kept lab follow a folder of manifests as it is now, and waits until it does. `id` as in [`LabState::find`].
///
/// # Errors
/// When there is no such lab, or the manifests make no cluster.
pub fn apply(id: Option<&str>, folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    let folder = folder.canonicalize().map_err(Error::file("cannot read", folder))?;
    let lab = LabState::find(id)?;
    let nobody = || Err(Error::Keeper(format!("is gone; `lab down` removes what is left of {}", lab.id)));
    order(&lab, &format!("apply {}", folder.display())).unwrap_or_else(nobody)
}

/// Runs a command in a pod, on a node, or outside, with this process's input and output. Gives the exit code that a shell
/// gives: the command's own, 128 and the number of the signal that ended it, 127 if there is no such command, 126 if it
/// cannot be executed. `id` as in [`LabState::find`].
///
/// # Errors
/// When there is no such lab or place, or no command is given.
pub fn exec(id: Option<&str>, place: &str, command: &[String]) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt;

    let lab = LabState::find(id)?;
    let netns = NetNs::named(lab.netns_of(place)?);
    let failed = |message: String| Error::Command { command: command.join(" "), message };
    let (program, arguments) =
        command.split_first().ok_or_else(|| failed("give a command after `--`".into()))?;
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

/// Takes a lab down, also one whose keeper is gone. `id` as in [`LabState::find`].
///
/// # Errors
/// When there is no such lab, or something of it cannot be removed.
pub fn down(id: Option<&str>) -> Result<LabState> {
    let lab = LabState::find(id)?;
    match order(&lab, "down") {
        Some(done) => done?,
        None => Reaper::start(&lab.prefix, &lab.folder)?.finish()?,
    }
    Ok(lab)
}
