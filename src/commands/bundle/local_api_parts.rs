//! Parts that the local API of the running daemon provides.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::part::{Part, PartBuffer, PartError};
use crate::config::Config;
use crate::local_client::{LocalClient, LocalClientError};

/// The time that the daemon has to respond.
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);

/// Documents of the daemon.
const PATHS: [(&str, &str, &str); 5] = [
    ("/v1/status", "daemon/status.json", "state of the daemon (portcullis status)"),
    ("/v1/services?problems=true", "daemon/service-problems.json", "Services with problems, up to 1,000"),
    ("/v1/services", "daemon/services.json", "Services that the daemon serves, up to 1,000"),
    ("/v1/policies", "daemon/policies.json", "policies that the daemon enforces"),
    ("/v1/timeline?limit=1000", "daemon/timeline.json", "recent syncs and drift"),
];

/// Returns the parts.
pub(super) fn parts(config: &Config) -> Vec<Part> {
    let is_silent = Arc::new(AtomicBool::new(false));
    let part = |(path, name, description): &(&'static str, &'static str, &'static str)| {
        let (path, socket, is_silent) = (*path, config.socket.clone(), Arc::clone(&is_silent));
        Part::new(*name, description, move |out| match socket {
            None => Err(PartError::not_applicable("the local API is disabled (socket is empty)")),
            Some(_) if is_silent.load(Relaxed) => {
                Err(PartError::failed("the daemon did not respond to an earlier request on its socket"))
            }
            Some(socket) => get(socket, path, &is_silent, out),
        })
    };
    PATHS.iter().map(part).collect()
}

fn get(socket: PathBuf, path: &str, is_silent: &AtomicBool, out: &mut PartBuffer) -> Result<(), PartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = LocalClient::new(&socket);
    let request = async {
        let mut body = client.open(path).await.map_err(|error| match error {
            LocalClientError::Status { status: StatusCode::NOT_FOUND, message, .. } => {
                PartError::NotApplicable(message)
            }
            error => PartError::failed(error),
        })?;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(PartError::failed)?.into_data() {
                out.write_all(&data)?;
            }
        }
        Ok(())
    };
    runtime.block_on(async { timeout(RESPONSE_LIMIT, request).await }).unwrap_or_else(|_| {
        is_silent.store(true, Relaxed);
        let seconds = RESPONSE_LIMIT.as_secs();
        Err(PartError::Failed(format!("the daemon did not respond to {path} within {seconds} s")))
    })
}
