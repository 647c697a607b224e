//! The exec plugin of a kubeconfig (`users[].user.exec`): a program that prints credentials for the API server.
//!
//! It is run as client-go runs it, but with a time limit and limited output, in a process group of its own, and never with a
//! terminal:
//!
//! ```text
//! KUBERNETES_EXEC_INFO ─► program ─► ExecCredential ─► CredentialCache ─► client
//!                                                        │ before the credential expires, after the API server rejected it
//!                                                        └─► again, with growing waits after failures
//! ```
//!
//! Its output and its arguments have secrets, so neither is in any error or log line.

mod cache;
mod credential;
mod error_output;

use std::collections::BTreeMap;
use std::fmt;

use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use portcullis_modes::external_program::{ExternalProgram, ProgramError, ProgramErrorKind};
use serde_json::{Value, json};

pub(super) use cache::{Available, CredentialCache, Lookup};
pub(super) use credential::ExecCredential;
use error_output::shortened;

use super::access::AccessError;

/// The versions of `client.authentication.k8s.io` that a plugin may use.
const API_VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// The size of an environment variable in bytes that the kernel accepts, with its name (`MAX_ARG_STRLEN`).
const MAX_VARIABLE: usize = 128 << 10;

/// The variable that tells a plugin the API version and the cluster.
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";

/// An exec plugin.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ExecPlugin {
    command: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    api_version: String,
    install_hint: Option<String>,
}

impl fmt::Debug for ExecPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ExecPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec plugin {}", self.command)
    }
}

impl ExecPlugin {
    /// Returns the plugin of a kubeconfig's user.
    ///
    /// # Errors
    /// A field is missing or invalid, or the plugin needs a terminal.
    pub(super) fn from_config(config: &ExecConfig) -> Result<Self, AccessError> {
        let command = config.command.clone().unwrap_or_default();
        let invalid = |message: String| AccessError::Credentials {
            of: format!("exec plugin {command}").trim_end().to_owned(),
            message,
        };
        if command.is_empty() {
            return Err(invalid("command is missing, expected the program that prints credentials".into()));
        }
        let api_version = config.api_version.clone().unwrap_or_default();
        if !API_VERSIONS.contains(&api_version.as_str()) {
            return Err(invalid(format!(
                "apiVersion: unknown version {api_version:?}; expected {}",
                API_VERSIONS.join(" or ")
            )));
        }
        if config.interactive_mode == Some(ExecInteractiveMode::Always) {
            return Err(invalid(
                "interactiveMode: Always needs a terminal, which a daemon lacks; expected Never or IfAvailable".into(),
            ));
        }
        let mut environment = environment(config).map_err(invalid)?;
        environment.push((EXEC_INFO.into(), exec_info(config, &api_version).map_err(invalid)?));
        Ok(ExecPlugin {
            arguments: config.args.clone().unwrap_or_default(),
            install_hint: config.install_hint.clone().filter(|hint| !hint.trim().is_empty()),
            command,
            environment,
            api_version,
        })
    }

    /// Runs the plugin. Blocks until it ends, or is killed at its time limit.
    ///
    /// # Errors
    /// It is missing, failed, did not end in time, or printed no valid credential.
    pub(super) fn run(&self) -> Result<ExecCredential, PluginError> {
        self.credential_of(&self.program())
    }

    fn program(&self) -> ExternalProgram {
        ExternalProgram::new(&self.command)
            .with_arguments(self.arguments.iter().map(String::as_str))
            .with_environment(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn credential_of(&self, program: &ExternalProgram) -> Result<ExecCredential, PluginError> {
        let (end, output) = program.output().map_err(|error| self.not_run(error))?;
        if !end.status.success() {
            let reason = match shortened(&end.message) {
                text if text.is_empty() => "no error output".to_owned(),
                text => text,
            };
            return Err(PluginError::new(format!("it failed with {}: {reason}", end.status)));
        }
        ExecCredential::parse(&output, &self.api_version).map_err(PluginError::new)
    }

    fn not_run(&self, error: ProgramError) -> PluginError {
        // The arguments may have secrets.
        let short = |kind| ProgramError { command: "it".into(), kind }.to_string();
        match error.kind {
            ProgramErrorKind::CannotStart(error) => {
                let hint = self.install_hint.as_deref().map(shortened);
                let hint =
                    hint.map_or_else(String::new, |hint| format!("; the kubeconfig's installHint: {hint}"));
                let message = format!("it cannot be run: {error}{hint}");
                PluginError { is_missing: error.kind() == std::io::ErrorKind::NotFound, message }
            }
            ProgramErrorKind::Killed { signal, message } => {
                PluginError::new(short(ProgramErrorKind::Killed { signal, message: shortened(&message) }))
            }
            kind => PluginError::new(short(kind)),
        }
    }
}

/// Why a plugin returned no credential.
#[derive(Clone, Debug)]
pub(super) struct PluginError {
    /// The program does not exist.
    pub(super) is_missing: bool,
    /// The reason.
    pub(super) message: String,
}

impl PluginError {
    fn new(message: String) -> Self {
        PluginError { is_missing: false, message }
    }
}

/// Returns the variables of a plugin that the kubeconfig sets, in addition to those of this process.
fn environment(config: &ExecConfig) -> Result<Vec<(String, String)>, String> {
    let variables = config.env.as_deref().unwrap_or_default().iter();
    let variables = variables.map(|variable: &std::collections::HashMap<String, String>| {
        let name = variable.get("name").filter(|name| !name.is_empty() && !name.contains(['=', '\0']));
        let name = name.ok_or("env: a variable has no valid name, expected name and value")?;
        let value = variable.get("value").filter(|value| !value.contains('\0'));
        let value = value.ok_or_else(|| format!("env: variable {name} has no valid value"))?;
        Ok((name.clone(), value.clone()))
    });
    variables.collect()
}

/// Returns the content of `KUBERNETES_EXEC_INFO`.
fn exec_info(config: &ExecConfig, api_version: &str) -> Result<String, String> {
    let mut spec = BTreeMap::from([("interactive", json!(false))]);
    if config.provide_cluster_info {
        let cluster: &ExecAuthCluster =
            config.cluster.as_ref().ok_or("the kubeconfig has no cluster for it")?;
        let cluster =
            serde_json::to_value(cluster).map_err(|error| format!("provideClusterInfo: {error}"))?;
        spec.insert("cluster", without_nulls(cluster));
    }
    let info = json!({"kind": "ExecCredential", "apiVersion": api_version, "spec": spec}).to_string();
    if info.len() + EXEC_INFO.len() + 2 > MAX_VARIABLE {
        return Err(format!(
            "the cluster's information has {} bytes, and a variable may have {MAX_VARIABLE}; expected a smaller \
             certificate-authority, or provideClusterInfo: false",
            info.len()
        ));
    }
    Ok(info)
}

/// Removes fields without a value, which client-go leaves out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
