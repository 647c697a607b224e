//! A watch of the configuration file (`--config`).
//!
//! kube-proxy ends when the file changes, so that its supervisor restarts it. So does this daemon, but only if the file is
//! valid and results in another configuration: an invalid ConfigMap must not stop the proxies of all nodes, and a changed
//! comment needs no restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::config::{Config, ConfigErrors};
use crate::file_watch::FileWatch;

/// The time without a change before the file is read: editors write it in several steps.
const QUIET_PERIOD: Duration = Duration::from_millis(200);

/// The period of reading without a change, for file systems without inotify.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

/// The period of reading without inotify, and while the folder does not exist.
const POLL_PERIOD: Duration = Duration::from_secs(5);

/// The configuration file, and a function that reads it.
pub struct ConfigFile {
    /// Its path.
    pub path: PathBuf,
    /// Reads the configuration from the command line and the file.
    pub read: Box<dyn Fn() -> Result<Config, ConfigErrors> + Send>,
}

/// A change of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConfigChange {
    /// It is valid, and results in another configuration.
    Changed,
    /// It is invalid, for these reasons; the configuration of the start stays in use.
    Invalid(String),
    /// It is valid, and results in the configuration of the start.
    Restored,
}

/// Watches the file and reports changes relative to the `running` configuration.
pub(super) fn follow(file: ConfigFile, running: Config) -> mpsc::Receiver<ConfigChange> {
    let (sink, changes) = mpsc::channel(1);
    tokio::spawn(async move {
        let changed = Arc::new(Notify::new());
        let mut watch = FileWatch::new(file.path.clone(), |_| false, changed.clone());
        let mut last = ConfigChange::Restored;
        loop {
            // Watch before reading, so that changes in between are noticed.
            let watched = watch.watch_paths();
            let found = compare((file.read)(), &running);
            if found != last && sink.send(found.clone()).await.is_err() {
                return;
            }
            last = found;
            let waited = timeout(if watched { CHECK_PERIOD } else { POLL_PERIOD }, changed.notified());
            tokio::select! {
                waited = waited => if waited.is_ok() {
                    while timeout(QUIET_PERIOD, changed.notified()).await.is_ok() {}
                },
                () = sink.closed() => return,
            }
        }
    });
    changes
}

fn compare(read: Result<Config, ConfigErrors>, running: &Config) -> ConfigChange {
    match read {
        Ok(config) if config == *running => ConfigChange::Restored,
        Ok(_) => ConfigChange::Changed,
        Err(errors) => ConfigChange::Invalid(errors.to_string()),
    }
}
