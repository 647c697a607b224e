//! The environment variables of a request.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::addresses::{AttachmentKey, InvalidKey};

use super::error::{CniError, ErrorCode, Result};
use super::verb::Verb;

const COMMAND: &str = "CNI_COMMAND";
const CONTAINER_ID: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const INTERFACE: &str = "CNI_IFNAME";
const ARGUMENTS: &str = "CNI_ARGS";

/// Arguments of `CNI_ARGS` that runtimes of Kubernetes pass, and that need no action.
const IGNORED_ARGUMENTS: [&str; 4] =
    ["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

/// The environment variables of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) verb: Verb,
    /// The container and its interface, for operations about a container.
    pub(super) key: Option<AttachmentKey>,
    /// The path of the network namespace.
    pub(super) netns: Option<PathBuf>,
}

impl Environment {
    /// Reads the variables by `get`. An empty variable is a missing one.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidEnvironment`], with the names of all missing variables.
    pub(super) fn parse(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name: &str| match get(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Err(bytes)) => Err(invalid(format!("{name} is not UTF-8: {bytes:?}"))),
        };
        let command = text(COMMAND)?.ok_or_else(|| invalid(format!("{COMMAND} is missing")))?;
        let verb = Verb::from_name(&command).ok_or_else(|| {
            let expected = Verb::ALL.map(Verb::name).join(", ");
            invalid(format!("unknown {COMMAND} {command:?}; expected one of {expected}"))
        })?;
        let (container_id, interface) = (text(CONTAINER_ID)?, text(INTERFACE)?);
        // A path is any bytes.
        let netns = get(NETNS).filter(|path| !path.is_empty()).map(PathBuf::from);
        let required = [
            (CONTAINER_ID, verb.has_container(), container_id.is_some()),
            (NETNS, verb.needs_netns(), netns.is_some()),
            (INTERFACE, verb.has_container(), interface.is_some()),
        ];
        let missing: Vec<_> = required
            .into_iter()
            .filter(|(_, is_required, is_present)| *is_required && !is_present)
            .map(|(name, ..)| name)
            .collect();
        if !missing.is_empty() {
            let are = if missing.len() == 1 { "is" } else { "are" };
            return Err(invalid(format!("{} {are} missing for {}", missing.join(", "), verb.name())));
        }
        let key = match (container_id, interface) {
            (Some(id), Some(interface)) if verb.has_container() => Some(key(id, interface)?),
            _ => None,
        };
        // What was added must be removable, whatever the arguments.
        if verb == Verb::Add {
            check_arguments(&text(ARGUMENTS)?.unwrap_or_default())?;
        }
        Ok(Environment { verb, key, netns })
    }
}

fn invalid(message: String) -> CniError {
    CniError::new(ErrorCode::InvalidEnvironment, message)
}

fn key(id: String, interface: String) -> Result<AttachmentKey> {
    AttachmentKey::new(id, interface).map_err(|error| {
        let variable = match &error {
            InvalidKey::ContainerId(_) => CONTAINER_ID,
            InvalidKey::Interface(_) => INTERFACE,
        };
        invalid(format!("{variable}: {error}"))
    })
}

/// Checks `CNI_ARGS`: `KEY=VALUE` separated by semicolons. An argument that is not known could ask for something that this plugin
/// does not do, such as an address, so it is an error unless `IgnoreUnknown` is true.
fn check_arguments(arguments: &str) -> Result<()> {
    let mut ignore_unknown = false;
    let mut unknown = Vec::new();
    for pair in arguments.split(';').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(invalid(format!("{ARGUMENTS}: {pair:?} is not of the form KEY=VALUE")));
        };
        match name {
            "IgnoreUnknown" => ignore_unknown = boolean(value)?,
            name if IGNORED_ARGUMENTS.contains(&name) => {}
            name => unknown.push(name),
        }
    }
    match ignore_unknown || unknown.is_empty() {
        true => Ok(()),
        false => Err(invalid(format!(
            "{ARGUMENTS}: unknown argument {}; add IgnoreUnknown=1 to ignore it",
            unknown.join(", ")
        ))),
    }
}

/// Parses a boolean as the reference plugins do.
fn boolean(value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(invalid(format!("{ARGUMENTS}: IgnoreUnknown={value}: expected true or false"))),
    }
}
