//! Notifications to the service manager, as systemd has them for `Type=notify` (sd_notify(3)). Without `NOTIFY_SOCKET`
//! there is none.
//!
//! The start is reported when the daemon listens and waits for the cluster's objects, not when it has programmed them: a node
//! whose API server is away would otherwise exceed `TimeoutStartSec` and be restarted for ever. The watchdog is fed as long
//! as the loop and its threads make progress, by the same judgement as `/livez`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::http::{Health, HealthStatus, Moment};

/// How often the status is brought up to date, if the watchdog needs nothing sooner.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// How long the end of the daemon waits for the notification of it.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The longest status, in bytes; `systemctl status` shows it in a line.
const LONGEST_STATUS: usize = 200;

/// The thread that notifies. It is not the loop's, which must not wait for the service manager.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// Takes the request to report the end; dropped once that is done.
    stop: Option<SyncSender<SyncSender<()>>>,
}

impl ServiceManager {
    /// Reports that the daemon has started, and from then on its status and that it makes progress.
    pub(super) fn notify_of(health: Arc<Health>) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return ServiceManager { stop: None };
        }
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        let (stop, stopping) = sync_channel(1);
        let notify = move || notify(&health, watchdog, &stopping);
        match thread::Builder::new().name("sd_notify".into()).spawn(notify) {
            Ok(_) => ServiceManager { stop: Some(stop) },
            Err(error) => {
                tracing::warn!(%error, "no thread to notify the service manager; it will restart this daemon");
                ServiceManager { stop: None }
            }
        }
    }

    /// Reports that the daemon ends.
    pub(super) async fn stopping(self) {
        let Some(stop) = self.stop else { return };
        let notification = tokio::task::spawn_blocking(move || {
            let (done, reported) = sync_channel(1);
            if stop.try_send(done).is_ok() {
                let _late = reported.recv_timeout(STOP_PATIENCE);
            }
        });
        drop(notification.await);
    }
}

fn notify(health: &Health, watchdog: Option<Duration>, stopping: &Receiver<SyncSender<()>>) {
    let mut status = status(&health.status(Moment::now()));
    send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    // Twice in the time that systemd allows, as it recommends.
    let period = watchdog.map_or(STATUS_PERIOD, |limit| STATUS_PERIOD.min(limit / 2));
    loop {
        let verdict = health.status(Moment::now());
        if watchdog.is_some() && verdict.stalls.is_empty() {
            send(&[NotifyState::Watchdog]);
        }
        let now = self::status(&verdict);
        if now != status {
            status = now;
            send(&[NotifyState::Status(&status)]);
        }
        match stopping.recv_timeout(period) {
            Ok(done) => {
                send(&[NotifyState::Stopping, NotifyState::Status("Stopping; the rules stay")]);
                // Who waited may have lost patience.
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
        tracing::debug!(%error, "the service manager could not be notified");
    }
}

/// The status as one line.
fn status(verdict: &HealthStatus) -> String {
    let problems: Vec<String> = verdict.problems().collect();
    let mut line = match problems.as_slice() {
        [] if verdict.families.values().any(|family| family.last_synced.is_none()) => {
            "Waiting for the cluster's objects and the first sync".to_owned()
        }
        [] => "Serving".to_owned(),
        [problem] => format!("Problem: {problem}"),
        [first, rest @ ..] => format!("Problem: {first}; and {} more", rest.len()),
    };
    if let Some((cut, _)) = line.char_indices().find(|(at, c)| at + c.len_utf8() > LONGEST_STATUS) {
        line.truncate(cut);
        line.push('…');
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::Family;

    use super::*;
    use crate::http::{HealthProblem, Limits};

    #[test]
    fn the_status_is_a_line() {
        let start = Moment::now();
        let health = Health::new(Limits::new(Duration::from_secs(30), false), [Family::V4], start);
        let status = || super::status(&health.status(start));
        assert_eq!(status(), "Waiting for the cluster's objects and the first sync");
        health.synced(Family::V4, start);
        assert_eq!(status(), "Serving");
        health.set_problems("a", vec![HealthProblem::warning("first\nsecond")]);
        assert_eq!(status(), "Problem: a: first second");
        health.set_problems("b", vec![HealthProblem::warning("é".repeat(300))]);
        assert_eq!(status(), "Problem: a: first second; and 1 more");
        health.set_problems("a", vec![]);
        assert!(
            status().ends_with("éé…") && status().len() <= LONGEST_STATUS + '…'.len_utf8(),
            "{}",
            status()
        );
    }
}
