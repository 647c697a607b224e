//! `/metrics/services`: traffic counters of each Service, from counters that the kernel keeps anyway.
//!
//! The thread that writes the rules reads them on request; nothing is counted, stored or read otherwise.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use portcullis_modes::{ServicePortTraffic, SyncError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::response::{self, PLAIN};
use crate::observe::metrics::{CONTENT_TYPE, services};

/// Time limit for reading the counters; Prometheus' default scrape timeout is 10 seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Traffic of the Services; `None` in a mode without counters.
pub type TrafficResponse = Result<Option<Vec<ServicePortTraffic>>, SyncError>;

/// A request for the traffic of the Services, with the channel for the response.
pub type TrafficRequest = oneshot::Sender<TrafficResponse>;

/// Handle that requests the traffic of the Services from the main loop.
#[derive(Clone, Debug)]
pub struct ServiceTraffic(mpsc::Sender<TrafficRequest>);

impl ServiceTraffic {
    /// Creates a handle and the receiver of its requests.
    pub fn channel() -> (Self, mpsc::Receiver<TrafficRequest>) {
        let (sender, requests) = mpsc::channel(4);
        (ServiceTraffic(sender), requests)
    }

    pub(super) async fn respond(&self) -> Response {
        let request = async {
            let (sender, response) = oneshot::channel();
            self.0.send(sender).await.ok()?;
            response.await.ok()
        };
        let unavailable =
            |message: String| response::nosniff(StatusCode::SERVICE_UNAVAILABLE, PLAIN, message);
        match timeout(TIMEOUT, request).await {
            Err(_) => unavailable(format!("counters not read within {} s\n", TIMEOUT.as_secs())),
            Ok(None) => unavailable("the daemon is shutting down\n".to_owned()),
            Ok(Some(Err(error))) => unavailable(format!("{error}\n")),
            Ok(Some(Ok(None))) => {
                let message = "nftables mode counts traffic only with --nftables-service-counters; iptables and ipvs mode always do\n";
                response::nosniff(StatusCode::NOT_FOUND, PLAIN, message)
            }
            Ok(Some(Ok(Some(traffic)))) => match services::render(&traffic) {
                Ok(text) => response::with_type(StatusCode::OK, CONTENT_TYPE, text),
                Err(error) => unavailable(format!("cannot encode metrics: {error}\n")),
            },
        }
    }
}
