//! A watch on the configuration file (`--config`).
//!
//! kube-proxy exits when the file changes, so that its supervisor restarts it. This daemon also exits, but only if the file
//! is valid and results in a different configuration: an invalid ConfigMap must not stop the proxies of all nodes, and a
//! changed comment does not require a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::config::{Config, ConfigErrors};
use crate::file_watch::FileWatch;

/// The time without changes before the file is read. Editors write files in several steps.
const QUIET_PERIOD: Duration = Duration::from_millis(200);

/// The period of reads without a notification, for file systems that do not support inotify.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

/// The period of reads if the watch could not be set up, for example because the directory does not exist.
const POLL_PERIOD: Duration = Duration::from_secs(5);

/// The configuration file, and a function that reads it.
pub struct ConfigFile {
    /// The path of the file.
    pub path: PathBuf,
    /// Reads the configuration from the command line and the file.
    pub read: Box<dyn Fn() -> Result<Config, ConfigErrors> + Send>,
}

/// A change to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConfigChange {
    /// The file is valid and results in a different configuration.
    Changed,
    /// The file is invalid, for these reasons. The running configuration stays in use.
    Invalid(String),
    /// The file is valid and results in the running configuration.
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
            // Watch before the read, so that changes between the two are noticed.
            let watched = watch.watch_paths();
            let change = compare((file.read)(), &running);
            if change != last && sink.send(change.clone()).await.is_err() {
                return;
            }
            last = change;
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
