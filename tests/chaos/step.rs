//! The steps of a scenario.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A proxy mode of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Mode {
    Iptables,
    Ipvs,
    Nftables,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Iptables => "iptables",
            Mode::Ipvs => "ipvs",
            Mode::Nftables => "nftables",
        }
    }
}

/// A signal that ends the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Signal {
    Kill,
    Term,
}

/// A fault of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ApiFault {
    /// Error responses to the next requests whose path contains a word.
    Status { code: u16, on: String, times: usize },
    /// A response with status 200 that is interrupted after this text.
    Interrupt { text: String, on: String },
    /// No response to a request.
    Hang { on: String },
    /// All watches are interrupted.
    Disconnect,
    /// All watches end as after their timeout.
    Close,
    /// The history is compacted, and all watches are interrupted: they continue with 410.
    Compact,
    /// Text in all watches that is not an event.
    Garbage { text: String },
    /// The server closes its port and all connections until the next quiet moment, or the next `Up`.
    Down,
    /// The server opens its port again.
    Up,
    /// The server no longer supports streaming lists, or supports them again.
    Streaming { supported: bool },
}

/// One step. A step that does not apply, such as `Start` of a running daemon, has no effect, so that any part of a
/// scenario is a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Step {
    /// Creates or replaces an object.
    Apply(Value),
    /// Deletes an object.
    Delete {
        kind: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        namespace: String,
        name: String,
    },
    /// Replaces an object by one that cannot be read, or creates such an object.
    Invalidate {
        kind: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        namespace: String,
        name: String,
    },
    /// Ends the daemon.
    Stop(Signal),
    /// Starts the daemon in a mode.
    Start(Mode),
    /// A command of another process on the node. `{chain}`, `{set}` and `{map}` stand for one of the program's.
    Foreign(String),
    /// A fault of the API server.
    Fault(ApiFault),
    /// Milliseconds until the next step.
    Wait(u64),
    /// Waits for a quiet moment and checks the rules.
    Check,
    /// Waits for a quiet moment and checks rules and packets.
    Packets,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Apply(object) => {
                let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
                write!(
                    f,
                    "apply {} {}/{}",
                    text("/kind"),
                    text("/metadata/namespace"),
                    text("/metadata/name")
                )
            }
            Step::Delete { kind, namespace, name } => write!(f, "delete {kind} {namespace}/{name}"),
            Step::Invalidate { kind, namespace, name } => write!(f, "invalidate {kind} {namespace}/{name}"),
            Step::Start(mode) => write!(f, "start in {} mode", mode.name()),
            Step::Foreign(command) => write!(f, "another process: {command}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Returns the name of a kind in paths of the API.
pub(crate) fn plural(kind: &str) -> &'static str {
    match kind {
        "Service" => "services",
        "EndpointSlice" => "endpointslices",
        "Node" => "nodes",
        "Pod" => "pods",
        "Namespace" => "namespaces",
        "NetworkPolicy" => "networkpolicies",
        "ClusterNetworkPolicy" => "clusternetworkpolicies",
        _ => panic!("scenarios have no {kind}"),
    }
}
