//! How to reach the API server, and as whom: a kubeconfig, the pod's own account, or a bare address.
//!
//! Of kube-proxy's `clientConnection`, only `kubeconfig` has a use here: we speak JSON, and make so few
//! requests (one a kind, and then one every 5 to 10 minutes) that `qps` and `burst` would limit nothing.

use std::path::PathBuf;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::sync::Mutex;

use crate::error_chain::describe;

/// How to reach the API server. Where neither is set, the account of the pod we run in is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file; its current context counts.
    pub kubeconfig: Option<PathBuf>,
    /// `--master`: the server's address, in place of the one that the kubeconfig or the pod gives.
    pub master: Option<String>,
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be read, or leads nowhere.
    #[error("kubeconfig {path}: {}; check --kubeconfig (clientConnection.kubeconfig) and the files it names", describe(.source))]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KubeconfigError,
    },
    /// We do not run in a pod that has an account.
    #[error("neither --kubeconfig nor --master is given, and this is no pod with a service account: {}; give one of them, or --manifests", describe(.0))]
    InCluster(#[source] InClusterError),
    /// `--master` is no address.
    #[error("--master {address:?}: {message}, expected an address such as https://10.0.0.1:6443")]
    Master {
        /// What stands there.
        address: String,
        /// What is wrong.
        message: String,
    },
    /// The client cannot be built from the configuration.
    #[error("no client for {server}: {}; check the certificates and credentials", describe(.source))]
    Client {
        /// The server's address.
        server: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

impl Access {
    /// What it uses, in words, for messages about credentials.
    pub fn credentials(&self) -> String {
        match (&self.kubeconfig, &self.master) {
            (Some(path), _) => format!("those of kubeconfig {}", path.display()),
            (None, Some(_)) if Config::incluster_env().is_err() => {
                "none (--master without --kubeconfig)".into()
            }
            (None, _) => "those of the pod's service account".into(),
        }
    }

    /// Reads the files it names and makes a client of them. Opens no connection.
    ///
    /// # Errors
    /// A file cannot be read or makes no sense, or there is none and this is no pod.
    pub async fn client(&self) -> Result<Client, AccessError> {
        let mut config = self.config().await?;
        if let Some(address) = &self.master {
            config.cluster_url = master_url(address)?;
        }
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // We know better what to try again, and when.
        config.default_retry = false;
        config.headers.push((USER_AGENT, HeaderValue::from_static(OUR_NAME)));
        let server = config.cluster_url.to_string();
        Client::try_from(config).map_err(|source| AccessError::Client { server, source: Box::new(source) })
    }

    async fn config(&self) -> Result<Config, AccessError> {
        if let Some(path) = &self.kubeconfig {
            let wrong = |source| AccessError::Kubeconfig { path: path.clone(), source };
            let mut kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
            if let Some(address) = &self.master {
                // So that a kubeconfig without an address will do, too.
                let clusters = kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut());
                clusters.for_each(|cluster| cluster.server = Some(address.clone()));
            }
            return Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(wrong);
        }
        match (Config::incluster_env(), &self.master) {
            (Ok(config), _) => Ok(config),
            (Err(_), Some(address)) => Ok(Config::new(master_url(address)?)),
            (Err(error), None) => Err(AccessError::InCluster(error)),
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What we call ourselves to the server.
const OUR_NAME: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"), " (linux)");

/// Takes `10.0.0.1:8080` and `localhost:8080` for http, as client-go does.
fn master_url(address: &str) -> Result<http::Uri, AccessError> {
    let wrong = |message: String| AccessError::Master { address: address.to_owned(), message };
    let full = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let url: http::Uri = full.parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    match url.scheme_str() {
        Some("http" | "https") if url.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        _ => Err(wrong("its scheme is neither http nor https".into())),
    }
}

/// The way to the API server that all kinds share.
#[derive(Debug)]
pub struct Connection {
    access: Access,
    client: Mutex<Option<SharedClient>>,
}

struct SharedClient(Client);

impl std::fmt::Debug for SharedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Connection {
    /// Makes the first client.
    ///
    /// # Errors
    /// As [`Access::client`].
    pub async fn open(access: Access) -> Result<Self, AccessError> {
        let client = access.client().await?;
        Ok(Connection { access, client: Mutex::new(Some(SharedClient(client))) })
    }

    /// A client; made from the files again after [`Connection::forget`].
    ///
    /// # Errors
    /// As [`Access::client`].
    pub async fn client(&self) -> Result<Client, AccessError> {
        let mut slot = self.client.lock().await;
        let client = match slot.take() {
            Some(SharedClient(client)) => client,
            None => self.access.client().await?,
        };
        *slot = Some(SharedClient(client.clone()));
        Ok(client)
    }

    /// Drops the client, because its credentials are refused: they may have been renewed on disk since.
    pub async fn forget(&self) {
        *self.client.lock().await = None;
    }

    /// What it was made from.
    pub fn access(&self) -> &Access {
        &self.access
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_addresses() {
        let rows = [
            ("https://10.0.0.1:6443", Some("https://10.0.0.1:6443/")),
            ("10.0.0.1:8080", Some("http://10.0.0.1:8080/")),
            ("[::1]:8080", Some("http://[::1]:8080/")),
            ("ftp://10.0.0.1", None),
            ("http://", None),
            ("not an address", None),
        ];
        for (address, expected) in rows {
            let url = master_url(address).ok().map(|url| url.to_string());
            assert_eq!(url.as_deref(), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let access = Access { kubeconfig: Some("/nonexistent/config".into()), master: None };
        let error = access.client().await.err().expect("there is no such file").to_string();
        assert!(error.contains("/nonexistent/config") && error.contains("--kubeconfig"), "{error}");
    }
}
