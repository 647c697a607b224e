//! Notifications to the service manager: systemd's protocol for `Type=notify` (sd_notify(3)). Without `NOTIFY_SOCKET` in
//! the environment, nothing is sent.
//!
//! `READY=1` is sent when the daemon listens and waits for the cluster's objects, not after the first sync. Otherwise a
//! node without a connection to the API server would exceed `TimeoutStartSec`, and systemd would restart the daemon again
//! and again. Watchdog keep-alives are sent while the event loop and its threads make progress, as `/livez` reports it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::moment::Moment;
use crate::observe::health::{Health, HealthStatus};

/// The period of status updates, unless the watchdog needs a shorter one.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// The maximum time for which a stopping daemon waits until the notification is sent.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum length of the status in bytes; `systemctl status` shows it in one line.
const MAX_STATUS_LENGTH: usize = 200;

/// The thread that sends notifications. The event loop does not send them, as it must not wait for the service manager.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// Sends a request to report the stop. The request's channel is notified once that is done.
    stop: Option<SyncSender<SyncSender<()>>>,
}

impl ServiceManager {
    /// Reports that the daemon has started, and starts the reports of its status and progress.
    pub(super) fn start(health: Arc<Health>) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return ServiceManager { stop: None };
        }
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        let (stop, stopping) = sync_channel(1);
        let notify = move || notify(&health, watchdog, &stopping);
        match thread::Builder::new().name("sd_notify".into()).spawn(notify) {
            Ok(_) => ServiceManager { stop: Some(stop) },
            Err(error) => {
                tracing::warn!(%error, "cannot start the thread that notifies the service manager; it will restart this daemon");
                ServiceManager { stop: None }
            }
        }
    }

    /// Reports that the daemon stops.
    pub(super) async fn stopping(self) {
        let Some(stop) = self.stop else { return };
        let notification = tokio::task::spawn_blocking(move || {
            let (done, reported) = sync_channel(1);
            if stop.try_send(done).is_ok() {
                let _late = reported.recv_timeout(STOP_TIMEOUT);
            }
        });
        drop(notification.await);
    }
}

fn notify(health: &Health, watchdog: Option<Duration>, stopping: &Receiver<SyncSender<()>>) {
    let mut status = status(&health.status(Moment::now()));
    send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    // Half of the watchdog timeout, as sd_watchdog_enabled(3) recommends.
    let period = watchdog.map_or(STATUS_PERIOD, |limit| STATUS_PERIOD.min(limit / 2));
    loop {
        let current = health.status(Moment::now());
        if watchdog.is_some() && current.stalls.is_empty() {
            send(&[NotifyState::Watchdog]);
        }
        let line = self::status(&current);
        if line != status {
            status = line;
            send(&[NotifyState::Status(&status)]);
        }
        match stopping.recv_timeout(period) {
            Ok(done) => {
                send(&[NotifyState::Stopping, NotifyState::Status("Stopping; the rules stay")]);
                // The receiver may have timed out.
                let _ = done.try_send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// Returns the health status as one line.
fn status(health: &HealthStatus) -> String {
    let problems: Vec<String> = health.problems().collect();
    let mut line = match problems.as_slice() {
        [] if health.rules.iter().any(|rules| rules.last_synced.is_none()) => {
            "Waiting for the cluster's objects and the first sync".to_owned()
        }
        [] => "Serving".to_owned(),
        [problem] => format!("Problem: {problem}"),
        [first, rest @ ..] => format!("Problem: {first}; and {} more", rest.len()),
    };
    if let Some((end, _)) = line.char_indices().find(|(at, c)| at + c.len_utf8() > MAX_STATUS_LENGTH) {
        line.truncate(end);
        line.push('…');
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ControllerName, SyncHistory};
    use crate::observe::health::{HealthProblem, Limits};

    #[test]
    fn status_is_one_line_of_limited_length() {
        let start = Moment::now();
        let health = Health::new(Limits::new(Duration::from_secs(30), false), start, Arc::default());
        let mut syncs = SyncHistory::new("IPv4");
        health.set_syncs(ControllerName::SERVICES, vec![syncs.clone()], false);
        let status = || super::status(&health.status(start));
        assert_eq!(status(), "Waiting for the cluster's objects and the first sync");
        syncs.succeeded(start);
        health.set_syncs(ControllerName::SERVICES, vec![syncs], false);
        assert_eq!(status(), "Serving");
        health.set_problems("a", vec![HealthProblem::warning("first\nsecond")]);
        assert_eq!(status(), "Problem: a: first second");
        health.set_problems("b", vec![HealthProblem::warning("é".repeat(300))]);
        assert_eq!(status(), "Problem: a: first second; and 1 more");
        health.set_problems("a", vec![]);
        assert!(
            status().ends_with("éé…") && status().len() <= MAX_STATUS_LENGTH + '…'.len_utf8(),
            "{}",
            status()
        );
    }
}
