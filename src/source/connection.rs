//! The client of the API server that all kinds share, and its renewal when credentials change.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::Mutex;

use super::access::{Access, AccessError};
use super::credential_files::CredentialFiles;
use super::exec_plugin::{Available, CredentialCache, ExecPlugin, Lookup};

/// The shortest and the longest time between two checks for a credential that is about to expire. The clock may jump.
const CHECK_PERIODS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// A client of the API server that all kinds share.
#[derive(Debug)]
pub struct Connection {
    access: Access,
    client: Mutex<Slot>,
    credentials: Arc<CredentialCache>,
    /// Why changed credentials are not in use.
    problem: std::sync::Mutex<Option<String>>,
}

/// The client, and the number of clients that were created.
#[derive(Debug, Default)]
struct Slot {
    shared: Option<SharedClient>,
    count: u64,
}

struct SharedClient {
    client: Client,
    files: CredentialFiles,
    /// The exec plugin's credential that it has.
    credential: Option<PluginCredential>,
    /// Distinguishes clients: each is created with a greater number.
    number: u64,
}

/// A credential of an exec plugin.
struct PluginCredential {
    plugin: ExecPlugin,
    version: u64,
    unusable_from: Option<Timestamp>,
}

impl std::fmt::Debug for SharedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client {}", self.number)
    }
}

impl SharedClient {
    /// Returns true if its credential has not expired, as far as is known.
    fn is_usable(&self) -> bool {
        let unusable_from = self.credential.as_ref().and_then(|credential| credential.unusable_from);
        unusable_from.is_none_or(|expires| Timestamp::now() < expires)
    }
}

impl Connection {
    /// Reads the files of the credentials, and creates the first client. A plugin that fails is no error: it is run again.
    ///
    /// # Errors
    /// A file cannot be read or is invalid, there is neither a file nor a service account, or the exec plugin does not exist.
    pub async fn open(access: Access) -> Result<Self, AccessError> {
        let connection = Connection {
            access,
            client: Mutex::default(),
            credentials: Arc::default(),
            problem: std::sync::Mutex::default(),
        };
        match connection.client().await {
            // Reported; the plugin is run again.
            Ok(_) | Err(AccessError::Plugin(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(connection)
    }

    /// Returns a client; a new one if a file or the exec plugin's credential has changed, and after `Connection::forget`. While a
    /// changed file is invalid or the plugin fails, the last client stays in use, as long as its credential is valid.
    ///
    /// # Errors
    /// As [`Connection::open`]; the plugin failed; or the credentials that it returned are invalid.
    pub async fn client(&self) -> Result<Client, AccessError> {
        self.numbered_client().await.map(|(client, _)| client)
    }

    /// The same, with the client's number for [`Connection::forget`].
    pub(super) async fn numbered_client(&self) -> Result<(Client, u64), AccessError> {
        let mut slot = self.client.lock().await;
        let mut problem = None;
        if !slot.shared.as_ref().is_some_and(|shared| self.is_current(shared)) {
            let can_stay = slot.shared.as_ref().is_some_and(SharedClient::is_usable);
            match self.create(can_stay).await {
                Ok(Some(mut shared)) => {
                    slot.count += 1;
                    shared.number = slot.count;
                    slot.shared = Some(shared);
                }
                Ok(None) => {}
                Err(error) if can_stay => {
                    problem = Some(format!(
                        "the changed credentials are invalid: {error}; keeping the last credentials"
                    ));
                }
                Err(error) => {
                    slot.shared = None;
                    self.report(Some(format!("{error}; no request is sent without valid credentials")));
                    return Err(error);
                }
            }
        }
        self.report(problem);
        let shared = slot.shared.as_ref().expect("it was created, or can stay in use");
        Ok((shared.client.clone(), shared.number))
    }

    /// Returns true if neither the files nor the plugin's credential have changed. Starts the plugin if its credential is about to
    /// expire.
    fn is_current(&self, shared: &SharedClient) -> bool {
        let is_current = |used: &PluginCredential| match self.credentials.lookup(&used.plugin) {
            Lookup::Usable(available) => available.version == used.version,
            Lookup::NeedsRefresh(available) => {
                self.start(&used.plugin);
                available.version == used.version
            }
            Lookup::Missing | Lookup::Failed(_) => false,
        };
        !shared.files.have_changed() && shared.credential.as_ref().is_none_or(is_current)
    }

    /// Creates a client. `None` if the plugin must be run first, and the last client `can_stay` in use meanwhile.
    async fn create(&self, can_stay: bool) -> Result<Option<SharedClient>, AccessError> {
        let config = self.access.read().await?;
        let Some(plugin) = config.plugin.clone() else {
            let (client, files) = config.client(None)?;
            return Ok(Some(SharedClient { client, files, credential: None, number: 0 }));
        };
        let Some(available) = self.credential(&plugin, can_stay).await? else { return Ok(None) };
        let Available { credential, version, unusable_from } = available;
        match config.client(Some(&credential)) {
            Ok((client, files)) => {
                let credential = Some(PluginCredential { plugin, version, unusable_from });
                Ok(Some(SharedClient { client, files, credential, number: 0 }))
            }
            Err(error) => {
                // It would be invalid again; the plugin may return another one.
                self.credentials.reject(version);
                Err(AccessError::Plugin(format!("{plugin}: its credential is invalid: {error}")))
            }
        }
    }

    /// Returns a plugin's credential, and runs the plugin if there is none. With `in_background`, returns `None` instead of waiting for
    /// it.
    async fn credential(
        &self,
        plugin: &ExecPlugin,
        in_background: bool,
    ) -> Result<Option<Available>, AccessError> {
        if matches!(self.credentials.lookup(plugin), Lookup::Missing) {
            if in_background {
                self.start(plugin);
                return Ok(None);
            }
            self.credentials.run(plugin).await;
        }
        match self.credentials.lookup(plugin) {
            Lookup::Usable(available) => Ok(Some(available)),
            Lookup::NeedsRefresh(available) => {
                self.start(plugin);
                Ok(Some(available))
            }
            Lookup::Failed(error) if error.is_missing => {
                Err(AccessError::Credentials { of: plugin.to_string(), message: error.message })
            }
            Lookup::Failed(error) => Err(AccessError::Plugin(format!("{plugin}: {}", error.message))),
            Lookup::Missing => Err(AccessError::Plugin(format!("{plugin}: its credential has expired"))),
        }
    }

    /// Runs a plugin in the background, unless it runs already.
    fn start(&self, plugin: &ExecPlugin) {
        let (credentials, plugin) = (self.credentials.clone(), plugin.clone());
        tokio::spawn(async move { credentials.run_if_idle(&plugin).await });
    }

    /// Renews the credential of an exec plugin before it expires, for ever.
    pub(super) async fn keep_credential_fresh(self: Arc<Self>, report: impl Fn(Option<String>)) {
        loop {
            let wait = self.credentials.next_refresh().unwrap_or(CHECK_PERIODS[1]);
            tokio::time::sleep(wait.clamp(CHECK_PERIODS[0], CHECK_PERIODS[1])).await;
            // Its error is reported by requests, which need the client.
            let _ = self.client().await;
            report(self.credentials_problem());
        }
    }

    /// Sets why changed credentials are not in use, and logs a new reason.
    fn report(&self, problem: Option<String>) {
        let problem = problem.or_else(|| self.credentials.problem());
        let mut reported = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = problem.as_ref().filter(|problem| reported.as_ref() != Some(problem)) {
            tracing::warn!("{problem}");
        }
        *reported = problem;
    }

    /// Returns why changed credentials are not in use, or no new ones could be received; `None` if all is well.
    pub fn credentials_problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Drops a client, unless a newer one is in use: the files may have newer credentials. With `is_rejected`, the server rejected its
    /// credentials, so that the exec plugin is run again.
    pub(super) async fn forget(&self, number: u64, is_rejected: bool) {
        let mut slot = self.client.lock().await;
        let Some(shared) = slot.shared.take_if(|shared| shared.number == number) else { return };
        if let (Some(credential), true) = (&shared.credential, is_rejected) {
            self.credentials.reject(credential.version);
        }
    }

    /// Returns the address and credentials.
    pub fn access(&self) -> &Access {
        &self.access
    }
}
