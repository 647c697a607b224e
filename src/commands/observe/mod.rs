//! `portcullis observe`: packets that policies or source ranges drop, and connections, as they happen.

mod text;

use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use form_urlencoded::Serializer;
use http_body_util::BodyExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{Config, Observe, ObserveFormat};
use crate::local_client::{LocalClient, LocalClientError};
use crate::observe::traffic_events::{
    ConnectionLines, EventFilter, FilterError, LossReason, PeerFilter, StreamLine, Verdict,
};
use crate::output::{Output, is_stdout_closed};
use text::Table;

/// The default of `--for`.
const LIMIT: Duration = Duration::from_secs(30);

/// The period of checks whether standard output is closed.
const CLOSED_PERIOD: Duration = Duration::from_millis(500);

/// The greatest length of a line of the stream.
const MAX_LINE: usize = 1 << 20;

/// Why nothing is observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The configuration has no socket.
    #[error("the local API is disabled (--socket is empty); {ALTERNATIVES}")]
    Disabled,
    /// No daemon runs.
    #[error("{0}; {ALTERNATIVES}")]
    NoDaemon(String),
    /// The daemon rejected the request, or the stream ended.
    #[error("{0}")]
    Stream(String),
    /// A filter is not valid.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A filter by name, without a daemon.
    #[error("{0}; without the daemon, --from and --to must be addresses, and --namespace cannot be used")]
    NamesUnknown(String),
    /// Standard output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// The alternatives to a daemon.
const ALTERNATIVES: &str = "without a daemon, conntrack -E shows connections, and tcpdump -n -i nflog:N shows drops if rules \
                            log them (--network-policy-log-group=N)";

/// Prints events until the limit, or until it is interrupted.
///
/// # Errors
/// [`ObserveError`]
pub(crate) fn run<W: Write>(
    config: &Config,
    arguments: &Observe,
    has_colors: bool,
    out: &mut Output<W>,
) -> Result<(), ObserveError> {
    let query = query(arguments);
    // An invalid filter is reported before a request is sent to the daemon.
    let filter = EventFilter::parse(&query)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = config.socket.as_deref();
        let opened = match socket {
            Some(socket) => LocalClient::new(socket).open(&format!("/v1/observe?{query}")).await,
            None => Err(LocalClientError::Unexpected(String::new())),
        };
        let mut lines = match opened {
            Ok(body) => Lines::Daemon { body, buffer: Vec::new() },
            Err(error) => {
                let reason = match (&error, socket) {
                    (_, None) => "the local API is disabled (--socket is empty)".to_owned(),
                    (LocalClientError::NotRunning { .. }, _) => error.to_string(),
                    _ => return Err(ObserveError::Stream(error.to_string())),
                };
                if filter.needs_drops() {
                    return Err(match socket {
                        None => ObserveError::Disabled,
                        Some(_) => ObserveError::NoDaemon(reason),
                    });
                }
                if filter.has_names() {
                    return Err(ObserveError::NamesUnknown(reason));
                }
                let lines = ConnectionLines::start(filter).map_err(ObserveError::Stream)?;
                eprintln!(
                    "portcullis: {reason}; reading conntrack events without names of pods and Services"
                );
                Lines::Kernel(Box::new(lines))
            }
        };
        let mut printer = Printer::new(arguments, has_colors);
        let result = print(&mut lines, arguments, &mut printer, out).await;
        printer.summary();
        result
    })
}

/// Returns the query of the request.
fn query(arguments: &Observe) -> String {
    let mut query = Serializer::new(String::new());
    let peer = |text: &str| PeerFilter::with_namespace(text, arguments.namespace.as_deref());
    if arguments.connections {
        query.append_pair("connections", "true");
    }
    for verdict in &arguments.verdict {
        query.append_pair("verdict", verdict.as_str());
    }
    let texts = [
        ("from", arguments.from.as_deref().map(peer)),
        ("to", arguments.to.as_deref().map(peer)),
        ("namespace", arguments.namespace.clone()),
        ("port", arguments.port.map(|port| port.to_string())),
        ("protocol", arguments.protocol.clone()),
        ("policy", arguments.policy.clone()),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    query.finish()
}

/// The lines of a stream.
enum Lines {
    /// The daemon's.
    Daemon { body: hyper::body::Incoming, buffer: Vec<u8> },
    /// Connections that this process reads.
    Kernel(Box<ConnectionLines>),
}

impl Lines {
    /// Waits for the next lines. `None` if the stream has ended.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        match self {
            Lines::Kernel(lines) => lines.next().await.map(Some),
            Lines::Daemon { body, buffer } => loop {
                let Some(frame) = body.frame().await else { return Ok(None) };
                let frame =
                    frame.map_err(|error| format!("cannot read the response of the daemon: {error}"))?;
                let Ok(data) = frame.into_data() else { continue };
                buffer.extend_from_slice(&data);
                if let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') {
                    let rest = buffer.split_off(end + 1);
                    return Ok(Some(std::mem::replace(buffer, rest)));
                }
                if buffer.len() > MAX_LINE {
                    return Err("the daemon sent a line that is too long".to_owned());
                }
            },
        }
    }
}

async fn print<W: Write>(
    lines: &mut Lines,
    arguments: &Observe,
    printer: &mut Printer,
    out: &mut Output<W>,
) -> Result<(), ObserveError> {
    let limit = match (arguments.limit, arguments.follow || arguments.count.is_some()) {
        (Some(limit), _) => Some(limit),
        (None, true) => None,
        (None, false) => Some(LIMIT),
    };
    let deadline = limit.map(|limit| Instant::now() + limit);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut closed = pin!(stdout_closed());
    loop {
        let chunk = tokio::select! {
            chunk = lines.next() => chunk.map_err(ObserveError::Stream)?,
            () = &mut closed => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            () = wait_until(deadline) => return Ok(()),
        };
        let Some(chunk) = chunk else {
            return Err(ObserveError::Stream("the daemon has ended the stream".to_owned()));
        };
        for line in chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            printer.print(line, out)?;
            if arguments.count.is_some_and(|count| printer.events >= count) {
                out.flush()?;
                return Ok(());
            }
        }
        out.flush()?;
        if out.is_closed() {
            return Ok(());
        }
    }
}

/// Waits until the reader of standard output has closed it. Without events nothing is written that would fail.
async fn stdout_closed() {
    while !is_stdout_closed() {
        sleep(CLOSED_PERIOD).await;
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Prints lines in the requested format, and counts events.
struct Printer {
    format: ObserveFormat,
    table: Table,
    events: u64,
    lost: u64,
    lost_uncounted: bool,
}

impl Printer {
    fn new(arguments: &Observe, has_colors: bool) -> Self {
        Printer {
            format: arguments.output,
            table: Table::new(has_colors),
            events: 0,
            lost: 0,
            lost_uncounted: false,
        }
    }

    fn print(&mut self, line: &[u8], out: &mut impl Write) -> Result<(), ObserveError> {
        let parsed: StreamLine = serde_json::from_slice(line).map_err(|error| {
            let text = "the daemon sent an unexpected line; its version may differ from that of this command";
            ObserveError::Stream(format!("{text}: {error}"))
        })?;
        if self.format == ObserveFormat::Json {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
        let is_text = self.format == ObserveFormat::Text;
        match parsed {
            StreamLine::Observation(_) if is_text => self.table.print_head(out)?,
            StreamLine::Observation(_) => {}
            StreamLine::TrafficEvent(event) => {
                self.events += 1;
                if is_text {
                    self.table.print(&event, out)?;
                }
            }
            StreamLine::LostEvents(lost) => {
                self.lost += lost.events.unwrap_or(0);
                self.lost_uncounted |= lost.events.is_none();
                if is_text {
                    let events = lost.events.map_or("an unknown number of".to_owned(), |n| n.to_string());
                    writeln!(out, "-- {events} events lost: {}", reason(lost.reason))?;
                }
            }
            StreamLine::Notice(notice) if is_text => eprintln!("portcullis: {}", notice.message),
            StreamLine::Notice(_) => {}
        }
        Ok(())
    }

    /// Prints the number of events to standard error, where it does not disturb programs.
    fn summary(&self) {
        if self.format == ObserveFormat::Text {
            let events = if self.events == 1 { "event" } else { "events" };
            match (self.lost, self.lost_uncounted) {
                (0, false) => eprintln!("portcullis: {} {events}", self.events),
                (lost, false) => eprintln!("portcullis: {} {events}, and {lost} lost", self.events),
                (lost, true) => eprintln!("portcullis: {} {events}, and more than {lost} lost", self.events),
            }
        }
    }
}

/// Returns a description of a reason for losses.
fn reason(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Kernel => "more arrived than the daemon reads",
        LossReason::RateLimit => "a rule logs at most 10000 packets a second",
        LossReason::Observer => "this command or its output is too slow",
    }
}

/// Returns the color of a verdict.
fn color(verdict: Verdict) -> anstyle::AnsiColor {
    match verdict {
        Verdict::Dropped => anstyle::AnsiColor::Red,
        Verdict::Audit => anstyle::AnsiColor::Yellow,
        Verdict::New => anstyle::AnsiColor::Green,
        Verdict::Ended => anstyle::AnsiColor::Cyan,
    }
}
