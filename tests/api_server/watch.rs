//! Watches of the server.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::resource::Resource;
use super::response::error_status;
use super::selector::Selector;
use super::{Shared, Streaming, lock};

/// A command of a test.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Bookmark,
    Send(String),
    Break,
    Close,
}

type Lines = mpsc::Sender<Result<String, io::Error>>;

pub(super) struct Watch {
    shared: Arc<Shared>,
    resource: &'static Resource,
    selector: Selector,
    /// The response to the request for a streaming list, if it is one.
    initial: Option<Streaming>,
    bookmarks: bool,
    /// The revision after which events are sent; `None` to begin with all objects.
    since: Option<u64>,
    /// The latest and the oldest revision at the time of the request.
    revisions_at_start: (u64, u64),
    end: Instant,
}

/// The watch has ended.
struct Ended;

impl Watch {
    pub(super) fn new(
        shared: Arc<Shared>,
        resource: &'static Resource,
        selector: Selector,
        parameters: &HashMap<String, String>,
        initial: Option<Streaming>,
    ) -> Self {
        let number = |name: &str| parameters.get(name).and_then(|text| text.parse::<u64>().ok());
        let end = Instant::now() + Duration::from_secs(number("timeoutSeconds").unwrap_or(1800));
        let bookmarks = parameters.get("allowWatchBookmarks").is_some_and(|value| value == "true");
        let since = number("resourceVersion").filter(|&revision| revision > 0 && initial.is_none());
        let revisions_at_start = {
            let store = lock(&shared.store);
            (store.revision(), store.compacted())
        };
        Watch { shared, resource, selector, initial, bookmarks, since, revisions_at_start, end }
    }

    /// Sends events until the timeout, or until the test ends the watch.
    pub(super) async fn run(mut self, lines: Lines, mut commands: mpsc::UnboundedReceiver<Command>) {
        let _ = self.events(&lines, &mut commands).await;
    }

    async fn events(
        &mut self,
        lines: &Lines,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), Ended> {
        let mut changed = self.shared.changed.subscribe();
        let mut since = self.begin(lines).await?;
        let every = lock(&self.shared.settings).bookmarks;
        let mut next_bookmark = Instant::now() + every;
        loop {
            since = self.catch_up(lines, since).await?;
            tokio::select! {
                biased;
                Ok(()) = changed.changed() => {}
                Some(command) = commands.recv() => {
                    since = self.catch_up(lines, since).await?;
                    match command {
                        Command::Bookmark => self.bookmark(lines, since, false).await?,
                        Command::Send(text) => send(lines, Ok(text)).await?,
                        Command::Break => return send(lines, Err(io::Error::other("the test breaks the connection"))).await,
                        Command::Close => return Ok(()),
                    }
                }
                () = sleep_until(next_bookmark) => {
                    self.bookmark(lines, since, false).await?;
                    next_bookmark = Instant::now() + every;
                }
                () = sleep_until(self.end) => return self.bookmark(lines, since, false).await,
                () = lines.closed() => return Err(Ended),
            }
        }
    }

    /// Sends all objects, or an error, or nothing, and returns the revision after which changes follow.
    async fn begin(&self, lines: &Lines) -> Result<u64, Ended> {
        let (revision, compacted) = self.revisions_at_start;
        let error = match (self.initial, self.since) {
            (Some(Streaming::EtcdTooOld), _) => {
                let message = "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled";
                Some(error_status(500, "InternalError", message, None))
            }
            (_, Some(since)) if since < compacted => Some(error_status(
                410,
                "Expired",
                &format!("too old resource version: {since} ({compacted})"),
                None,
            )),
            _ => None,
        };
        if let Some(error) = error {
            event(lines, "ERROR", &error).await?;
            return Err(Ended);
        }
        if let Some(since) = self.since {
            return Ok(since);
        }
        let drip = lock(&self.shared.settings).drip;
        let objects = lock(&self.shared.store).list(self.resource, &self.selector, revision);
        for (_, object) in objects {
            event(lines, "ADDED", &object).await?;
            // A sleep of 0 takes one tick of the timer.
            if !drip.is_zero() {
                sleep(drip).await;
            }
        }
        if self.initial == Some(Streaming::Supported) {
            self.bookmark(lines, revision, true).await?;
        }
        Ok(revision)
    }

    async fn catch_up(&self, lines: &Lines, since: u64) -> Result<u64, Ended> {
        let (events, revision) = {
            let store = lock(&self.shared.store);
            (store.events(self.resource, &self.selector, since), store.revision())
        };
        for (kind, object) in events {
            event(lines, kind, &object).await?;
        }
        Ok(since.max(revision))
    }

    async fn bookmark(&self, lines: &Lines, since: u64, ends_list: bool) -> Result<(), Ended> {
        // No bookmarks for revisions that the server has not reached.
        if !self.bookmarks || since > lock(&self.shared.store).revision() {
            return Ok(());
        }
        event(lines, "BOOKMARK", &self.resource.bookmark(since, ends_list)).await
    }
}

async fn event(lines: &Lines, kind: &str, object: &Value) -> Result<(), Ended> {
    send(lines, Ok(format!("{}\n", json!({"type": kind, "object": object})))).await
}

async fn send(lines: &Lines, line: Result<String, io::Error>) -> Result<(), Ended> {
    lines.send(line).await.map_err(|_| Ended)
}
