//! `portcullis status`: the state of the daemon that runs on this node.

mod duration;
mod pod_network;
mod screen;
mod timeline;

pub(crate) use timeline::run as run_timeline;

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, OutputFormat, Status};
use crate::local_client::{LocalClient, LocalClientError};
use crate::observe::local_api::documents::StatusDocument;
use crate::output::Output;

/// The time between two requests of `--watch`.
const PERIOD: Duration = Duration::from_secs(2);

/// The time limit for a response. The daemon responds within about a second, also if its event loop is stuck, so a daemon that does not
/// is stuck as a whole. Until then, `--watch` shows the last state.
const LIMIT: Duration = Duration::from_secs(10);

/// Clears a terminal and moves the cursor to its start.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What the document says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The daemon is healthy.
    Healthy,
    /// It is not.
    Unhealthy,
    /// It is not known: the event loop did not respond, or there was no sync yet.
    Unknown,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The configuration has no socket.
    #[error(
        "the local API is disabled (--socket is empty); portcullis diff, render and explain work without a daemon"
    )]
    Disabled,
    /// The daemon does not run or respond.
    #[error("{0}; portcullis diff, render and explain work without a daemon")]
    NoDaemon(String),
    /// Standard output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// The document cannot be encoded.
    #[error("cannot encode the document: {0}")]
    Encode(String),
}

impl Verdict {
    /// Returns the verdict of a document.
    pub(crate) fn new(document: &StatusDocument) -> Self {
        let is_synced =
            !document.rules.is_empty() && document.rules.iter().all(|rules| rules.last_success.is_some());
        match (document.healthy, document.event_loop.responded && is_synced) {
            (false, _) => Verdict::Unhealthy,
            (true, true) => Verdict::Healthy,
            // `/healthz` succeeds while the first sync is not late yet.
            (true, false) => Verdict::Unknown,
        }
    }
}

/// Prints the status. With `--watch`, prints it until the output is closed.
///
/// # Errors
/// [`StatusError`]
pub(crate) fn run<W: Write>(
    config: &Config,
    arguments: Status,
    is_terminal: bool,
    has_colors: bool,
    out: &mut Output<W>,
) -> Result<Verdict, StatusError> {
    let client = client(config)?;
    if !arguments.watch {
        let document = request(&client).map_err(|error| StatusError::NoDaemon(error.to_string()))?;
        print(&document, arguments.output, has_colors, false, out)?;
        return Ok(Verdict::new(&document));
    }
    let mut verdict = Verdict::Unknown;
    while !out.is_closed() {
        let response = request(&client);
        if is_terminal && arguments.output == OutputFormat::Text {
            out.write_all(CLEAR.as_bytes())?;
        }
        match response {
            Ok(document) => {
                verdict = Verdict::new(&document);
                print(&document, arguments.output, has_colors, true, out)?;
            }
            // The daemon may be restarting.
            Err(error) if arguments.output == OutputFormat::Text => {
                verdict = Verdict::Unknown;
                writeln!(out, "{error}")?;
            }
            Err(error) => return Err(StatusError::NoDaemon(error.to_string())),
        }
        if !is_terminal && arguments.output == OutputFormat::Text {
            writeln!(out)?;
        }
        out.flush()?;
        if !out.is_closed() {
            thread::sleep(PERIOD);
        }
    }
    Ok(verdict)
}

/// Returns the client of the daemon's local API.
fn client(config: &Config) -> Result<LocalClient, StatusError> {
    let client = config.socket.as_deref().map(LocalClient::new);
    client.map(|client| client.with_limit(LIMIT)).ok_or(StatusError::Disabled)
}

fn request(client: &LocalClient) -> Result<StatusDocument, LocalClientError> {
    client.get("/v1/status", "Status")
}

/// Prints a document. `is_one_of_many`: JSON documents are lines, and YAML documents are separated.
fn print(
    document: &StatusDocument,
    format: OutputFormat,
    has_colors: bool,
    is_one_of_many: bool,
    out: &mut dyn Write,
) -> Result<(), StatusError> {
    match format {
        OutputFormat::Text => Ok(screen::print(document, has_colors, out)?),
        _ => print_document(document, format, is_one_of_many, out),
    }
}

/// Prints a document as JSON or YAML. `is_one_of_many`: JSON documents are lines, and YAML documents are separated.
fn print_document(
    document: &impl Serialize,
    format: OutputFormat,
    is_one_of_many: bool,
    out: &mut dyn Write,
) -> Result<(), StatusError> {
    let encode = |error: &dyn std::fmt::Display| StatusError::Encode(error.to_string());
    let text = match format {
        OutputFormat::Yaml => {
            let text = serde_saphyr::to_string(document).map_err(|error| encode(&error))?;
            if is_one_of_many { format!("---\n{text}") } else { text }
        }
        _ if is_one_of_many => serde_json::to_string(document).map_err(|error| encode(&error))?,
        _ => serde_json::to_string_pretty(document).map_err(|error| encode(&error))?,
    };
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    Ok(())
}
