//! `exec` and `log` of pods, as a kubelet serves them through the API server: a command is run on this machine.
//!
//! kubectl sends `exec` as a WebSocket with the protocol `v5.channel.k8s.io`: the first byte of each message is the channel
//! (KEP-4006).

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

const PROTOCOL: &str = "v5.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
/// A message that closes another channel.
const CLOSE: u8 = 255;

/// Returns the program to run for a command in a pod; `None` if there is no such container.
type Exec = dyn Fn(&str, &[String]) -> Option<std::process::Command> + Send + Sync;

/// What runs in the pods.
#[derive(Clone)]
pub(crate) struct PodPrograms {
    /// Runs commands.
    pub(crate) exec: Arc<Exec>,
    /// Returns the log of a pod.
    pub(crate) log: Arc<dyn Fn(&str) -> String + Send + Sync>,
}

/// Responds to a request below a pod.
pub(super) async fn respond(
    programs: PodPrograms,
    pod: &str,
    subresource: &str,
    request: Request,
) -> Response {
    if subresource == "log" {
        return (programs.log)(pod).into_response();
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let pairs = || form_urlencoded::parse(query.as_bytes());
    let words: Vec<String> =
        pairs().filter(|(key, _)| key == "command").map(|(_, word)| word.into_owned()).collect();
    let has_input = pairs().any(|(key, value)| key == "stdin" && value == "true");
    let Some(command) = (programs.exec)(pod, &words) else {
        return (axum::http::StatusCode::BAD_REQUEST, "container not found").into_response();
    };
    let (mut parts, _) = request.into_parts();
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => {
            upgrade.protocols([PROTOCOL]).on_upgrade(move |socket| run(socket, command, has_input))
        }
        Err(rejection) => rejection.into_response(),
    }
}

/// Runs a command with its streams on the channels of a socket.
async fn run(socket: WebSocket, command: std::process::Command, has_input: bool) {
    let mut command = Command::from(command);
    let stdin = if has_input { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("{command:?}: {error}"),
    };
    let (mut sender, receiver) = socket.split();
    let (messages, mut queue) = mpsc::channel::<Vec<u8>>(16);
    let stdout = tokio::spawn(read(child.stdout.take().expect("it is piped"), STDOUT, messages.clone()));
    let stderr = tokio::spawn(read(child.stderr.take().expect("it is piped"), STDERR, messages.clone()));
    tokio::spawn(feed(receiver, child.stdin.take()));
    tokio::spawn(async move {
        let status = child.wait().await.expect("it can be waited for");
        // The status comes after all output.
        drop(tokio::join!(stdout, stderr));
        let mut message = vec![ERROR];
        message.extend(end(status).to_string().bytes());
        drop(messages.send(message).await);
    });
    while let Some(message) = queue.recv().await {
        let is_last = message[0] == ERROR;
        if sender.send(Message::Binary(message.into())).await.is_err() || is_last {
            break;
        }
    }
    let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    drop(sender.send(Message::Close(Some(close))).await);
}

/// Sends what a stream has on a channel.
async fn read(mut from: impl AsyncRead + Unpin, channel: u8, messages: mpsc::Sender<Vec<u8>>) {
    let mut bytes = vec![0; 32 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let message = std::iter::once(channel).chain(bytes[..length].iter().copied()).collect();
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

/// Writes the messages for standard input to the command, until the client closes the channel.
async fn feed(
    mut receiver: impl StreamExt<Item = Result<Message, axum::Error>> + Unpin,
    mut stdin: Option<ChildStdin>,
) {
    while let Some(Ok(message)) = receiver.next().await {
        let Message::Binary(message) = message else { continue };
        match (message.split_first(), &mut stdin) {
            (Some((&STDIN, bytes)), Some(stdin)) => drop(stdin.write_all(bytes).await),
            (Some((&CLOSE, [STDIN])), _) => stdin = None,
            _ => {}
        }
    }
}

/// Returns the status of a command that has ended.
fn end(status: ExitStatus) -> Value {
    match status.code() {
        Some(0) => json!({"metadata": {}, "status": "Success"}),
        code => {
            let code = code.unwrap_or(137).to_string();
            json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code}]},
            })
        }
    }
}
