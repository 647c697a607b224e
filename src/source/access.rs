//! Clients of the API server: from a kubeconfig, the pod's service account, or an address.
//!
//! Of kube-proxy's `clientConnection`, only `kubeconfig` is used: requests are in JSON, and so few (one for each kind, and
//! then one every 5 to 10 minutes) that `qps` and `burst` would limit nothing.

use std::path::PathBuf;
use std::time::Duration;

use super::credential_files::{self, CredentialFiles};
use super::exec_plugin::{ExecCredential, ExecPlugin};
use super::kubectl_files::{self, KubectlFiles};
use http::header::{HeaderValue, USER_AGENT};
use kube::config::{InClusterError, KubeConfigOptions, KubeconfigError};
use kube::{Client, Config};

use crate::error_chain::{describe, without_url_users};

/// The address and credentials of the API server. If neither is set, the pod's service account is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file, of which the current context is used.
    pub kubeconfig: Option<PathBuf>,
    /// `--master`: the server's address, which overrides that of the kubeconfig or the service account.
    pub master: Option<String>,
    /// For commands: the files that are used without a kubeconfig, and the context. The daemon has none.
    pub kubectl: Option<Box<KubectlFiles>>,
}

/// Why no client can be created.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be read, or is invalid.
    #[error("kubeconfig {path}: {}; check --kubeconfig (clientConnection.kubeconfig) and the files it names", describe(.source))]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KubeconfigError,
    },
    /// There is no service account.
    #[error("neither --kubeconfig nor --master is set, and there is no service account of a pod{}; set one of them, or --manifests", in_cluster_cause(.0))]
    InCluster(#[source] InClusterError),
    /// A command has neither a kubeconfig nor a service account.
    #[error("--kubeconfig and --master are not set, {reason}, and there is no service account of a pod{}; set one of them, or --manifests", in_cluster_cause(.source))]
    NotFound {
        /// Why there is no kubeconfig.
        reason: String,
        /// Why there is no service account.
        source: InClusterError,
    },
    /// The context of `--context` does not exist.
    #[error("--context: there is no context {context} in {files}; {hint}")]
    Context {
        /// The context.
        context: String,
        /// The kubeconfig files.
        files: String,
        /// A similar name, or the existing contexts.
        hint: String,
    },
    /// `--master` is invalid.
    #[error(
        "--master {:?}: {message}, expected an address such as https://10.0.0.1:6443",
        without_url_users(address)
    )]
    Master {
        /// The value.
        address: String,
        /// What is wrong.
        message: String,
    },
    /// An exec plugin failed; it is run again.
    #[error("{0}")]
    Plugin(String),
    /// A file or the configuration of an exec plugin is invalid, or the plugin does not exist.
    #[error("{of}: {message}")]
    Credentials {
        /// The file or plugin.
        of: String,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// The client cannot be created from the configuration.
    #[error("cannot create a client for {}: {}; check {files}", without_url_users(server), describe(.source))]
    Client {
        /// The server's address.
        server: String,
        /// The files of its credentials.
        files: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

/// Returns why there is no service account, with a colon before it. Outside of a pod, nothing needs to be said.
fn in_cluster_cause(error: &InClusterError) -> String {
    match error {
        InClusterError::ReadEnvironmentVariable(_) => String::new(),
        error => format!(": {}", describe(error)),
    }
}

impl Access {
    /// Describes the credentials, for error messages.
    pub fn credentials(&self) -> String {
        let context = self.kubectl.as_ref().and_then(|kubectl| kubectl.context.as_ref());
        let context = context.map_or_else(String::new, |context| format!(", context {context}"));
        match (&self.kubeconfig, &self.master) {
            (Some(path), _) => format!("those of kubeconfig {}{context}", path.display()),
            (None, _) if !self.kubeconfigs().is_empty() => {
                format!("those of kubeconfig {}{context}", self.file_names())
            }
            (None, Some(_)) if Config::incluster_env().is_err() => {
                "none (--master without --kubeconfig)".into()
            }
            (None, _) => "those of the pod's service account".into(),
        }
    }

    /// Returns the kubeconfig files to read.
    fn kubeconfigs(&self) -> Vec<PathBuf> {
        match (&self.kubeconfig, &self.kubectl) {
            (Some(path), _) => vec![path.clone()],
            (None, Some(kubectl)) => kubectl.files.clone(),
            (None, None) => Vec::new(),
        }
    }

    fn file_names(&self) -> String {
        match (&self.kubeconfig, &self.kubectl) {
            (None, Some(kubectl)) => kubectl.to_string(),
            (path, _) => path.as_ref().map_or_else(String::new, |path| path.display().to_string()),
        }
    }

    /// Returns the namespace of the kubeconfig's context, or of the service account.
    pub async fn default_namespace(&self) -> Option<String> {
        let config = self.config(&mut CredentialFiles::default()).await.ok()?;
        Some(config.default_namespace)
    }

    /// Reads the files. Runs no exec plugin.
    ///
    /// # Errors
    /// A file cannot be read or is invalid, or there is neither a file nor a service account.
    pub(super) async fn read(&self) -> Result<ClientConfig, AccessError> {
        let mut files = CredentialFiles::default();
        let mut config = self.config(&mut files).await?;
        if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
            let message = "no certificate authority found, expected certificates in PEM".to_owned();
            return Err(AccessError::Credentials { of: files.to_string(), message });
        }
        let plugin = credential_files::prepare(&mut config.auth_info)?;
        if let Some(address) = &self.master {
            config.cluster_url = master_url(address)?;
        }
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The reflector retries.
        config.default_retry = false;
        config.headers.push((USER_AGENT, HeaderValue::from_static(USER_AGENT_NAME)));
        Ok(ClientConfig { config, files, plugin })
    }

    async fn config(&self, files: &mut CredentialFiles) -> Result<Config, AccessError> {
        let paths = self.kubeconfigs();
        let context = self.kubectl.as_ref().and_then(|kubectl| kubectl.context.clone());
        if let Some(first) = paths.first() {
            paths.iter().for_each(|path| files.add(path));
            files.check_sizes()?;
            let wrong = |source| AccessError::Kubeconfig { path: first.clone(), source };
            let mut kubeconfig = kubectl_files::read_and_merge(&paths)
                .map_err(|(path, source)| AccessError::Kubeconfig { path, source })?;
            if let Some(context) = &context {
                kubectl_files::check_context(&kubeconfig, context, &self.file_names())?;
            }
            if let Some(address) = &self.master {
                // Before parsing, so that a kubeconfig without an address is accepted.
                let clusters = kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut());
                clusters.for_each(|cluster| cluster.server = Some(address.clone()));
            }
            files.add_all_of(&kubeconfig);
            files.check_sizes()?;
            let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
            return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong);
        }
        if let Some(context) = context {
            let reason =
                self.kubectl.as_ref().map_or_else(String::new, |kubectl| kubectl.reason_without_files());
            return Err(AccessError::Context { context, files: "any kubeconfig".to_owned(), hint: reason });
        }
        match (Config::incluster_env(), &self.master) {
            (Ok(config), _) => {
                let authority = config.root_cert_file.clone();
                let token = config.auth_info.token_file.clone().map(PathBuf::from);
                authority.into_iter().chain(token).for_each(|path| files.add(path));
                files.check_sizes()?;
                Ok(config)
            }
            (Err(_), Some(address)) => Ok(Config::new(master_url(address)?)),
            (Err(source), None) => Err(match &self.kubectl {
                Some(kubectl) => AccessError::NotFound { reason: kubectl.reason_without_files(), source },
                None => AccessError::InCluster(source),
            }),
        }
    }
}

/// A client's configuration as read from files.
pub(super) struct ClientConfig {
    config: Config,
    /// The files that were read.
    pub(super) files: CredentialFiles,
    /// The plugin whose credential it needs.
    pub(super) plugin: Option<ExecPlugin>,
}

impl ClientConfig {
    /// Creates a client, with the credential of the exec plugin if there is one. Opens no connection.
    ///
    /// # Errors
    /// The credentials are invalid.
    pub(super) fn client(
        self,
        credential: Option<&ExecCredential>,
    ) -> Result<(Client, CredentialFiles), AccessError> {
        let ClientConfig { mut config, files, .. } = self;
        if let Some(credential) = credential {
            credential.apply(&mut config.auth_info);
        }
        let server = config.cluster_url.to_string();
        match Client::try_from(config) {
            Ok(client) => Ok((client, files)),
            Err(source) => {
                Err(AccessError::Client { server, files: files.to_string(), source: Box::new(source) })
            }
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The User-Agent header.
const USER_AGENT_NAME: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"), " (linux)");

/// Parses `--master`; without a scheme it is http, as in client-go.
fn master_url(address: &str) -> Result<http::Uri, AccessError> {
    let wrong = |message: String| AccessError::Master { address: address.to_owned(), message };
    let full = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let url: http::Uri = full.parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    match url.scheme_str() {
        Some("http" | "https") if url.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        _ => Err(wrong("its scheme is neither http nor https".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Connection;
    use super::*;

    #[test]
    fn master_addresses_are_parsed() {
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
    async fn error_names_the_invalid_credentials() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("it can be written");
        };
        write("empty", "\n");
        write("garbage.pem", "garbage\n");
        // The cluster's fields and the user's, and what the message names.
        let rows = [
            ("", "tokenFile: missing", vec!["token file", "/missing"]),
            ("", "tokenFile: empty", vec!["token file", "/empty", "expected a bearer token"]),
            ("certificate-authority: missing", "token: a", vec!["/missing"]),
            ("certificate-authority: garbage.pem", "token: a", vec!["/garbage.pem", "certificate"]),
            ("", "client-certificate: missing, client-key: garbage.pem", vec!["/missing"]),
            ("", "client-certificate: garbage.pem, client-key: garbage.pem", vec!["/garbage.pem"]),
            (
                "",
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: /no/plugin, interactiveMode: Never, \
                 installHint: install it from /no/where}",
                vec!["/no/plugin", "No such file", "installHint: install it from /no/where"],
            ),
            (
                "",
                "exec: {apiVersion: client.authentication.k8s.io/v1}",
                vec!["exec plugin", "command is missing"],
            ),
            (
                "",
                "exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: /no/plugin}",
                vec!["/no/plugin", "v1alpha1", "k8s.io/v1beta1"],
            ),
            (
                "",
                "auth-provider: {name: gcp, config: {cmd-path: /bin/true}}",
                vec!["auth-provider gcp", "exec"],
            ),
            (
                "",
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: /no/plugin, interactiveMode: Always}",
                vec!["/no/plugin", "interactiveMode"],
            ),
        ];
        for (cluster, user, named) in rows {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
                 clusters: [{{name: a, cluster: {{server: 'https://10.0.0.1', {cluster}}}}}]\nusers: [{{name: a, user: {{{user}}}}}]\n"
            );
            write("kubeconfig", &text);
            let kubeconfig = Some(folder.path().join("kubeconfig"));
            let access = Access { kubeconfig, ..Access::default() };
            let error = Connection::open(access).await.err();
            let error = error.unwrap_or_else(|| panic!("{cluster} {user} is used"));
            let error = error.to_string();
            assert!(named.iter().all(|named| error.contains(named)), "{cluster} {user}: {error}");
        }
    }

    #[tokio::test]
    async fn error_names_the_missing_kubeconfig() {
        let access = Access { kubeconfig: Some("/nonexistent/config".into()), ..Access::default() };
        let error = Connection::open(access).await.expect_err("there is no such file").to_string();
        assert!(error.contains("/nonexistent/config") && error.contains("--kubeconfig"), "{error}");
    }
}
