//! Connections without a daemon: read by the command itself, without names.

use std::time::Duration;

use portcullis_netlink::conntrack::ConnectionEvents;
use tokio::sync::mpsc;

use super::document::{LossReason, LostEvents, Observation, StreamLine};
use super::filter::EventFilter;
use super::names::NameCache;
use super::naming::Naming;
use super::observer::encode;
use super::reader::{Batch, Connections, Reader};
use crate::document::API_VERSION;

/// The batches that wait to be printed.
const QUEUED_BATCHES: usize = 4;

/// The lines of connections that this process reads.
#[derive(Debug)]
pub(crate) struct ConnectionLines {
    filter: EventFilter,
    batches: mpsc::Receiver<Batch>,
    naming: Naming,
    _reader: Reader,
    head: Option<StreamLine>,
}

impl ConnectionLines {
    /// Subscribes to connection events.
    ///
    /// # Errors
    /// A message: the privilege or the kernel's support is missing.
    pub(crate) fn start(filter: EventFilter) -> Result<Self, String> {
        let events = ConnectionEvents::listen().map_err(|error| error.to_string())?;
        let (sink, batches) = mpsc::channel(QUEUED_BATCHES);
        let reader = Reader::start(Connections::new(events), sink).map_err(|error| error.to_string())?;
        let api_version = API_VERSION.to_owned();
        let head = Some(StreamLine::Observation(Observation { api_version, node: String::new() }));
        Ok(ConnectionLines { filter, batches, naming: Naming::default(), _reader: reader, head })
    }

    /// Waits for the next lines.
    ///
    /// # Errors
    /// A message: events cannot be read any more.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, String> {
        if let Some(head) = self.head.take() {
            return Ok(encode(&head));
        }
        let Some(batch) = self.batches.recv().await else {
            // The reader has reported its error.
            tokio::time::sleep(Duration::MAX).await;
            return Ok(Vec::new());
        };
        if let Some(error) = batch.error {
            return Err(error);
        }
        let mut lines = Vec::new();
        if batch.lost_uncounted {
            let lost = LostEvents { reason: LossReason::Kernel, events: None };
            lines.extend(encode(&StreamLine::LostEvents(lost)));
        }
        let names = NameCache::default();
        for event in &batch.events {
            let event = self.naming.document(event, &names);
            if self.filter.matches(&event) {
                lines.extend(encode(&StreamLine::TrafficEvent(Box::new(event))));
            }
        }
        Ok(lines)
    }
}
