//! The last credential of an exec plugin, and when the plugin is run next.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{ExecCredential, ExecPlugin, PluginError};

/// The longest time before the expiry of a credential at which the plugin is run again. A shorter-lived credential is replaced after
/// four fifths of its lifetime.
const REFRESH_BEFORE: SignedDuration = SignedDuration::from_mins(2);

/// The shortest time between two runs for a credential that is about to expire: a plugin may return the same one again.
const SHORTEST_REFRESH: SignedDuration = SignedDuration::from_secs(5);

/// The first and the longest wait after a failure, and after a rejection by the API server.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// A credential that was used for this time was not rejected at first.
const LONG_USED: Duration = Duration::from_secs(60);

/// The credential of the plugin that was run last.
#[derive(Debug, Default)]
pub(in crate::source) struct CredentialCache {
    last: Mutex<Option<LastRun>>,
    /// The version of the last credential.
    version: AtomicU64,
    /// Held while a plugin runs.
    running: tokio::sync::Mutex<()>,
}

/// The last runs of a plugin.
#[derive(Debug)]
struct LastRun {
    plugin: ExecPlugin,
    /// The last credential, and whether it can be used.
    credential: Option<CachedCredential>,
    /// The error of the last run.
    error: Option<PluginError>,
    /// The number of failed runs and rejected credentials in a row.
    failures: u32,
    /// The time until which the plugin is not run again.
    not_before: Instant,
}

#[derive(Clone, Debug)]
struct CachedCredential {
    credential: ExecCredential,
    version: u64,
    received: Instant,
    /// The time from which it is to be replaced.
    refresh_at: Option<Timestamp>,
    /// The time from which it is not used; `None` also for one that had expired when it was received: the clock of this node or of the
    /// plugin's issuer is wrong, and the API server decides.
    unusable_from: Option<Timestamp>,
    is_rejected: bool,
}

/// A credential in the cache.
#[derive(Clone, Debug)]
pub(in crate::source) enum Lookup {
    /// It can be used.
    Usable(Available),
    /// The same, but the plugin is to be run for a newer one.
    NeedsRefresh(Available),
    /// There is none, and the plugin is to be run.
    Missing,
    /// There is none, and the plugin failed a short time ago.
    Failed(PluginError),
}

/// A credential that can be used.
#[derive(Clone, Debug)]
pub(in crate::source) struct Available {
    pub(in crate::source) credential: ExecCredential,
    /// Greater than that of each earlier credential.
    pub(in crate::source) version: u64,
    /// The time from which it cannot be used; `None` if that is not known.
    pub(in crate::source) unusable_from: Option<Timestamp>,
}

impl CredentialCache {
    /// Returns the state of a plugin's credential.
    pub(in crate::source) fn lookup(&self, plugin: &ExecPlugin) -> Lookup {
        self.lookup_at(plugin, Instant::now(), Timestamp::now())
    }

    fn lookup_at(&self, plugin: &ExecPlugin, now: Instant, clock: Timestamp) -> Lookup {
        let last = self.last();
        let Some(last) = last.as_ref().filter(|last| last.plugin == *plugin) else { return Lookup::Missing };
        let may_run = now >= last.not_before;
        match (&last.credential, &last.error) {
            (Some(cached), _) if cached.is_usable(clock) => {
                let is_due = cached.refresh_at.is_some_and(|at| clock >= at);
                match is_due && may_run {
                    true => Lookup::NeedsRefresh(cached.available()),
                    false => Lookup::Usable(cached.available()),
                }
            }
            _ if may_run => Lookup::Missing,
            // The API server rejected it a short time ago: its response is the error to be seen.
            (Some(cached), None) => Lookup::Usable(cached.available()),
            (_, Some(error)) => Lookup::Failed(error.clone()),
            (None, None) => Lookup::Missing,
        }
    }

    /// Runs a plugin on a thread, unless it was run meanwhile.
    pub(in crate::source) async fn run(&self, plugin: &ExecPlugin) {
        let _running = self.running.lock().await;
        if matches!(self.lookup(plugin), Lookup::Missing | Lookup::NeedsRefresh(..)) {
            self.run_now(plugin).await;
        }
    }

    /// The same, without a wait for a run that another task started.
    pub(in crate::source) async fn run_if_idle(&self, plugin: &ExecPlugin) {
        if let Ok(_running) = self.running.try_lock() {
            self.run_now(plugin).await;
        }
    }

    async fn run_now(&self, plugin: &ExecPlugin) {
        let program = plugin.clone();
        let result = tokio::task::spawn_blocking(move || program.run()).await;
        let result = result.unwrap_or_else(|error| {
            Err(PluginError { is_missing: false, message: format!("its task ended early: {error}") })
        });
        if let Err(error) = &result {
            tracing::debug!("{plugin}: {}", error.message);
        }
        self.record(plugin, result, Instant::now(), Timestamp::now());
    }

    fn record(
        &self,
        plugin: &ExecPlugin,
        result: Result<ExecCredential, PluginError>,
        now: Instant,
        clock: Timestamp,
    ) {
        let mut last = self.last();
        let before = last.take().filter(|last| last.plugin == *plugin);
        let failures = before.as_ref().map_or(0, |before| before.failures);
        let old = before.and_then(|before| before.credential);
        *last = Some(match result {
            Ok(credential) => {
                let version = self.version.fetch_add(1, Relaxed) + 1;
                let cached = CachedCredential::new(credential, version, now, clock);
                if let (None, Some(expired)) = (cached.unusable_from, cached.credential.expires()) {
                    tracing::warn!(
                        "{plugin}: its credential expired at {expired}; is the clock of this node wrong? using the credential \
                         until the API server rejects it"
                    );
                }
                // A rejected credential resets the failures only if it was in use for a while.
                let was_rejected = old.is_some_and(|old| old.is_rejected);
                let failures = if was_rejected { failures } else { 0 };
                LastRun {
                    plugin: plugin.clone(),
                    credential: Some(cached),
                    error: None,
                    failures,
                    not_before: now,
                }
            }
            Err(error) => {
                let credential = old.filter(|old| !old.is_rejected && old.is_usable(clock));
                let not_before = now + wait_after(failures);
                let failures = failures.saturating_add(1);
                LastRun { plugin: plugin.clone(), credential, error: Some(error), failures, not_before }
            }
        });
    }

    /// Marks a credential as rejected by the API server, unless there is a newer one: the plugin is run again.
    pub(in crate::source) fn reject(&self, version: u64) {
        self.reject_at(version, Instant::now());
    }

    fn reject_at(&self, version: u64, now: Instant) {
        let mut last = self.last();
        let Some(last) = last.as_mut() else { return };
        let Some(cached) = last.credential.as_mut().filter(|cached| cached.version == version) else {
            return;
        };
        if cached.is_rejected {
            return;
        }
        cached.is_rejected = true;
        if now.saturating_duration_since(cached.received) >= LONG_USED {
            last.failures = 0;
        }
        last.not_before = if last.failures == 0 { now } else { now + wait_after(last.failures - 1) };
        last.failures = last.failures.saturating_add(1);
    }

    /// Returns why the last credential is about to be unusable: the last run failed, and the credential of an earlier one is still in
    /// use; or the API server rejected it, and the plugin is run again later.
    pub(in crate::source) fn problem(&self) -> Option<String> {
        let last = self.last();
        let last = last.as_ref()?;
        let cached = last.credential.as_ref()?;
        match &last.error {
            None if cached.is_rejected => {
                Some(format!("{}: the API server rejected its credential; running it again", last.plugin))
            }
            Some(error) if cached.is_usable(Timestamp::now()) => {
                let until =
                    cached.unusable_from.map_or_else(String::new, |until| format!(" until {until:.0}"));
                Some(format!("{}: {}; its last credential stays in use{until}", last.plugin, error.message))
            }
            None | Some(_) => None,
        }
    }

    /// Returns the wait until the plugin is to be run for a newer credential, or again after a failure; `None` if the credential does
    /// not expire.
    pub(in crate::source) fn next_refresh(&self) -> Option<Duration> {
        let last = self.last();
        let last = last.as_ref()?;
        let until_run = last.not_before.saturating_duration_since(Instant::now());
        let Some(cached) = &last.credential else { return Some(until_run) };
        if cached.is_rejected {
            return Some(until_run);
        }
        let wait =
            Duration::try_from(cached.refresh_at?.duration_since(Timestamp::now())).unwrap_or_default();
        Some(wait.max(until_run))
    }

    fn last(&self) -> MutexGuard<'_, Option<LastRun>> {
        // A panic with the lock held leaves no partial value.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedCredential {
    fn new(credential: ExecCredential, version: u64, received: Instant, clock: Timestamp) -> Self {
        let expires = credential.expires();
        let unusable_from = expires.filter(|expires| *expires > clock);
        let refresh_at = unusable_from.map(|expires| {
            let lifetime = expires.duration_since(clock);
            let early = (lifetime / 5).min(REFRESH_BEFORE);
            (expires - early).max(clock + SHORTEST_REFRESH)
        });
        CachedCredential { credential, version, received, refresh_at, unusable_from, is_rejected: false }
    }

    fn available(&self) -> Available {
        let CachedCredential { credential, version, unusable_from, .. } = self;
        Available { credential: credential.clone(), version: *version, unusable_from: *unusable_from }
    }

    fn is_usable(&self, clock: Timestamp) -> bool {
        !self.is_rejected && self.unusable_from.is_none_or(|expires| clock < expires)
    }
}

/// Returns the wait after this number of earlier failures in a row.
fn wait_after(failures: u32) -> Duration {
    WAITS[0].saturating_mul(1 << failures.min(10)).min(WAITS[1])
}

#[cfg(test)]
mod tests {
    use super::super::tests::plugin;
    use super::*;

    /// Returns a credential that expires after this number of seconds.
    fn credential(token: &str, clock: Timestamp, lifetime: Option<i64>) -> ExecCredential {
        let expires = lifetime.map(|seconds| (clock + SignedDuration::from_secs(seconds)).to_string());
        let status = serde_json::json!({"token": token, "expirationTimestamp": expires});
        let output = serde_json::json!({
            "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status,
        });
        ExecCredential::parse(&output.to_string(), "client.authentication.k8s.io/v1").expect("it is valid")
    }

    fn described(lookup: &Lookup) -> String {
        match lookup {
            Lookup::Usable(Available { version, .. }) => format!("usable {version}"),
            Lookup::NeedsRefresh(Available { version, .. }) => format!("refresh {version}"),
            Lookup::Missing => "run".into(),
            Lookup::Failed(error) => format!("failed: {}", error.message),
        }
    }

    /// A step of a table.
    enum Step {
        /// The plugin returns a credential with this lifetime in seconds.
        Credential(Option<i64>),
        Fails,
        Rejected(u64),
        /// This number of milliseconds later the lookup returns this.
        At(u64, &'static str),
    }

    #[test]
    fn plugin_is_run_when_it_is_needed_and_not_more_often() {
        use Step::{At, Credential, Fails, Rejected};
        let rows: [(&str, Vec<Step>); 7] = [
            ("no expiry", vec![At(0, "run"), Credential(None), At(1_000_000_000, "usable 1")]),
            (
                "an hour",
                vec![
                    Credential(Some(3600)),
                    At(3_479_000, "usable 1"),
                    At(1_000, "refresh 1"),
                    Fails,
                    At(499, "usable 1"),
                    At(1, "refresh 1"),
                    Fails,
                    At(999, "usable 1"),
                    At(1, "refresh 1"),
                    Credential(Some(3600)),
                    At(60_000, "usable 2"),
                ],
            ),
            (
                "it expires while the plugin fails",
                vec![
                    Credential(Some(10)),
                    At(8_000, "refresh 1"),
                    At(1_900, "refresh 1"),
                    Fails,
                    At(200, "failed: no"),
                    At(300, "run"),
                    Credential(Some(10)),
                    At(0, "usable 2"),
                ],
            ),
            (
                "expired when it was received",
                vec![Credential(Some(-5)), At(1_000_000, "usable 1"), Rejected(1), At(0, "run")],
            ),
            (
                "rejected: first run immediately, then with waits",
                vec![
                    Credential(None),
                    Rejected(1),
                    At(0, "run"),
                    Credential(None),
                    Rejected(1),
                    At(0, "usable 2"),
                    Rejected(2),
                    At(0, "usable 2"),
                    At(500, "run"),
                    Credential(None),
                    Rejected(3),
                    At(999, "usable 3"),
                    At(1, "run"),
                    Credential(None),
                    At(60_000, "usable 4"),
                    Rejected(4),
                    At(0, "run"),
                ],
            ),
            (
                "rejected, and the plugin fails",
                vec![
                    Credential(None),
                    Rejected(1),
                    At(0, "run"),
                    Fails,
                    At(0, "failed: no"),
                    At(30_000, "run"),
                ],
            ),
            (
                "the same short-lived credential again",
                vec![Credential(Some(3)), At(2_999, "usable 1"), At(1, "run")],
            ),
        ];
        for (case, steps) in rows {
            let (cache, plugin) = (CredentialCache::default(), plugin("true"));
            let (mut now, mut clock) = (Instant::now(), Timestamp::now());
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Credential(lifetime) => {
                        cache.record(&plugin, Ok(credential("a", clock, *lifetime)), now, clock);
                    }
                    Fails => {
                        let error = PluginError { is_missing: false, message: "no".into() };
                        cache.record(&plugin, Err(error), now, clock);
                    }
                    Rejected(version) => cache.reject_at(*version, now),
                    At(later, expected) => {
                        now += Duration::from_millis(*later);
                        clock += SignedDuration::from_millis(i64::try_from(*later).expect("a small number"));
                        let found = described(&cache.lookup_at(&plugin, now, clock));
                        assert_eq!(found, *expected, "{case}: step {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn credential_of_another_plugin_is_not_used() {
        let (cache, clock) = (CredentialCache::default(), Timestamp::now());
        cache.record(&plugin("a"), Ok(credential("a", clock, None)), Instant::now(), clock);
        assert_eq!(described(&cache.lookup(&plugin("a"))), "usable 1");
        assert_eq!(described(&cache.lookup(&plugin("b"))), "run");
    }
}
