//! Tasks that stop the loop: on signals, on a new configuration, and with `--once` when the API server does not respond.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::config_watch::{self, ConfigChange, ConfigFile};
use crate::config::Config;
use crate::control::StopReason;
use crate::source::SourceHealth;
use crate::termination::Termination;

/// The period of checks for a response of the API server.
const CHECK_PERIOD: Duration = Duration::from_millis(100);

/// Stops the loop on SIGTERM and SIGINT.
pub(super) fn stop_on_signal(termination: Termination, stop: mpsc::Sender<StopReason>) {
    tokio::spawn(async move {
        termination.requested().await;
        // Fails if the loop has ended.
        let _ = stop.send(StopReason::Signal).await;
    });
}

/// Stops the loop when the configuration file results in another configuration. `report` is called when the file becomes
/// invalid, with its errors, and when it is valid again.
pub(super) fn stop_on_new_configuration(
    file: ConfigFile,
    running: Config,
    report: impl Fn(Option<&str>) + Send + 'static,
    stop: mpsc::Sender<StopReason>,
) {
    let path = file.path.clone();
    let mut changes = config_watch::follow(file, running);
    tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            match change {
                ConfigChange::Changed => {
                    let _ = stop.send(StopReason::Reconfigured(path)).await;
                    return;
                }
                ConfigChange::Restored => {
                    tracing::info!("the configuration file is valid again, and unchanged");
                    report(None);
                }
                ConfigChange::Invalid(errors) => {
                    tracing::error!(
                        "the configuration file is invalid; keeping the configuration of the start:\n{errors}"
                    );
                    report(Some(&errors));
                }
            }
        }
    });
}

/// Stops the loop when the API server has not responded for `timeout`, unless all objects are listed.
pub(super) fn stop_without_response(
    source: Arc<SourceHealth>,
    start: Instant,
    timeout: Duration,
    stop: mpsc::Sender<StopReason>,
) {
    tokio::spawn(async move {
        loop {
            if let Some(reason) = source.list_timeout(start, timeout) {
                let _ = stop.send(StopReason::NoResponse(timeout, reason)).await;
                return;
            }
            sleep(CHECK_PERIOD).await;
        }
    });
}
