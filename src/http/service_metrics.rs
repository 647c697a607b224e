//! `/metrics/services`: what each Service has served, by counters that the kernel keeps anyway.
//!
//! They are read when somebody asks, by whom the rules are written: nothing is counted, kept or read otherwise.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use portcullis_modes::{ServicePortTraffic, SyncError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::response::{self, PLAIN};
use crate::metrics::{CONTENT_TYPE, services};

/// How long reading may take; Prometheus waits for 10 seconds unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// What Services have served; `None` in a mode that does not count it.
pub type TrafficResponse = Result<Option<Vec<ServicePortTraffic>>, SyncError>;

/// Somebody who wants to know.
pub type TrafficRequest = oneshot::Sender<TrafficResponse>;

/// Asks the loop.
#[derive(Clone, Debug)]
pub struct ServiceTraffic(mpsc::Sender<TrafficRequest>);

impl ServiceTraffic {
    /// Who asks, and where the questions come out.
    pub fn channel() -> (Self, mpsc::Receiver<TrafficRequest>) {
        let (sender, inquiries) = mpsc::channel(4);
        (ServiceTraffic(sender), inquiries)
    }

    pub(super) async fn answer(&self) -> Response {
        let asked = async {
            let (inquiry, answer) = oneshot::channel();
            self.0.send(inquiry).await.ok()?;
            answer.await.ok()
        };
        let unavailable =
            |message: String| response::nosniff(StatusCode::SERVICE_UNAVAILABLE, PLAIN, message);
        match timeout(PATIENCE, asked).await {
            Err(_) => unavailable(format!("not read within {} s\n", PATIENCE.as_secs())),
            Ok(None) => unavailable("the program is ending\n".to_owned()),
            Ok(Some(Err(error))) => unavailable(format!("{error}\n")),
            Ok(Some(Ok(None))) => {
                let message = "this mode does not count what Services serve: iptables and ipvs do\n";
                response::nosniff(StatusCode::NOT_FOUND, PLAIN, message)
            }
            Ok(Some(Ok(Some(traffic)))) => match services::render(&traffic) {
                Ok(text) => response::with_type(StatusCode::OK, CONTENT_TYPE, text),
                Err(error) => unavailable(format!("metrics cannot be written: {error}\n")),
            },
        }
    }
}
