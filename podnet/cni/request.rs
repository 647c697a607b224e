//! A request: the environment and the standard input of the plugin.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::addresses::AttachmentKey;

use super::configuration::NetworkConfiguration;
use super::environment::Environment;
use super::error::{CniError, ErrorCode, Result};
use super::result::CniResult;
use super::{CniVersion, Verb};

/// A request, with the parameters that its operation requires.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `ADD`.
    Add(Container),
    /// `DEL`. Neither the network namespace nor the previous result need exist.
    Del(Container),
    /// `CHECK`, with the result of `ADD`.
    Check(Container, CniResult),
    /// `STATUS`.
    Status,
    /// `GC`, with the attachments that still exist.
    Gc(Vec<AttachmentKey>),
    /// `VERSION`, with the version of the answer.
    Version(String),
}

/// The container of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The container and its interface.
    pub key: AttachmentKey,
    /// The path of its network namespace; empty in a `DEL` without one.
    pub netns: PathBuf,
    /// The result of the previous plugin in the chain, for `ADD`.
    pub previous: Option<CniResult>,
}

/// A request with its configuration and the version in which to answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// The network configuration.
    pub configuration: NetworkConfiguration,
}

impl Call {
    /// Returns the request that undoes an `ADD`.
    pub(super) fn undo(self) -> Option<Self> {
        match self.request {
            Request::Add(container) => {
                Some(Call { request: Request::Del(container), configuration: self.configuration })
            }
            _ => None,
        }
    }

    /// Parses the environment, which `get` reads, and the standard input. Returns an error with the version in which to answer.
    ///
    /// # Errors
    /// Those of the specification for missing and malformed parameters.
    pub fn parse(
        get: impl Fn(&str) -> Option<OsString>,
        stdin: &[u8],
    ) -> Result<(Self, CniVersion), (CniError, CniVersion)> {
        let environment = Environment::parse(get).map_err(|error| (error, answer_version(stdin)))?;
        if environment.verb == Verb::Version {
            let version = requested_version(stdin).unwrap_or_else(|| CniVersion::LATEST.name().to_owned());
            let call =
                Call { request: Request::Version(version), configuration: NetworkConfiguration::default() };
            return Ok((call, CniVersion::LATEST));
        }
        let configuration =
            NetworkConfiguration::parse(stdin).map_err(|error| (error, CniVersion::LATEST))?;
        let version = supported_version(&configuration).map_err(|error| (error, CniVersion::LATEST))?;
        let call = Self::validated(environment, configuration, version).map_err(|error| (error, version))?;
        Ok((call, version))
    }

    fn validated(
        environment: Environment,
        configuration: NetworkConfiguration,
        version: CniVersion,
    ) -> Result<Self> {
        let Environment { verb, key, netns } = environment;
        if version < verb.since() {
            return Err(CniError::new(
                ErrorCode::IncompatibleVersion,
                format!(
                    "{} needs cniVersion {} or later; the network configuration has {version}",
                    verb.name(),
                    verb.since()
                ),
            ));
        }
        configuration.check_name()?;
        let container = |previous| {
            key.map(|key| Container { key, netns: netns.unwrap_or_default(), previous })
                .expect("the environment of this operation has a container")
        };
        let previous = || configuration.prev_result.as_ref().map(CniResult::parse).transpose();
        let request = match verb {
            Verb::Add => {
                if !configuration.is_loopback() {
                    configuration.check_for_add()?;
                }
                Request::Add(container(previous()?))
            }
            // The store knows more than the previous result, and what was added must be removable.
            Verb::Del => Request::Del(container(None)),
            Verb::Check => {
                let previous = previous()?.ok_or_else(|| {
                    let message = "network configuration: prevResult is missing; CHECK compares with it";
                    CniError::new(ErrorCode::InvalidConfiguration, message)
                })?;
                Request::Check(container(None), previous)
            }
            Verb::Status => Request::Status,
            Verb::Gc => Request::Gc(configuration.valid_attachments()?),
            Verb::Version => unreachable!("answered without a configuration"),
        };
        Ok(Call { request, configuration })
    }
}

/// Returns the version of a configuration. An absent one is 0.1.0, as in the specification of that time.
fn supported_version(configuration: &NetworkConfiguration) -> Result<CniVersion> {
    let requested = match configuration.cni_version.as_str() {
        "" => "0.1.0",
        version => version,
    };
    CniVersion::from_name(requested).ok_or_else(|| {
        CniError::new(ErrorCode::IncompatibleVersion, format!("cniVersion {requested:?} is not supported"))
            .with_details(format!("this plugin supports {}", CniVersion::names().join(", ")))
    })
}

/// Returns the version in which to report an error of the environment: that of the configuration, if it can be read.
fn answer_version(stdin: &[u8]) -> CniVersion {
    let requested = requested_version(stdin);
    requested.as_deref().and_then(CniVersion::from_name).unwrap_or(CniVersion::LATEST)
}

/// Returns the version that standard input has, whatever else it has.
fn requested_version(stdin: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        #[serde(rename = "cniVersion")]
        version: String,
    }
    serde_json::from_slice::<Versioned>(stdin).ok().map(|document| document.version)
}
