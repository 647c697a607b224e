//! Follows the file of `--config`.
//!
//! kube-proxy ends when it changes, for its supervisor to start it anew with what the file says then. So does this
//! daemon, but only for a file that can be used and that comes to something else: a slip in a ConfigMap must not take
//! the proxies of all nodes down at once, and a comment is no reason to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::config::{Config, ConfigErrors};
use crate::file_watch::FileWatch;

/// How long the file must rest before it is read: an editor writes it in several steps.
const QUIET_PERIOD: Duration = Duration::from_millis(200);

/// How often to look all the same, for file systems that inotify does not see through.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

/// How often to look where there is no inotify, or no such folder.
const POLL_PERIOD: Duration = Duration::from_secs(5);

/// The file, and what it comes to together with the command line.
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// Reads the configuration anew.
    pub read: Box<dyn Fn() -> Result<Config, ConfigErrors> + Send>,
}

/// What became of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConfigChange {
    /// It can be used, and says something else.
    Changed,
    /// It cannot be used, for these reasons; what was read at the start holds on.
    Invalid(String),
    /// It can be used again, and says what it said at the start.
    Restored,
}

/// Follows the file while `running` is what holds.
pub(super) fn follow(file: ConfigFile, running: Config) -> mpsc::Receiver<ConfigChange> {
    let (sink, changes) = mpsc::channel(1);
    tokio::spawn(async move {
        let changed = Arc::new(Notify::new());
        let mut watch = FileWatch::new(file.path.clone(), |_| false, changed.clone());
        let mut last = ConfigChange::Restored;
        loop {
            // First watched, then read: what changes in between is seen.
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
