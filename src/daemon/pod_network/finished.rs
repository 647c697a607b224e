//! The result of a sync, as observers read it.

use std::path::Path;

use portcullis_cluster::{Kind, Name, NamespacedName, ObjectKey};
use portcullis_modes::IsolationCause;

use crate::control::{
    FinishedSync, IsolatedObject, Measurements, ObjectNotice, PodAddressSource, PodNetworkMeasurements,
    RulesError, RulesResult,
};

use super::RULES;
use super::worker::PodNetworkResult;

/// Returns the finished sync. `objects`: the number of nodes. `state_dir`: the folder of the plugin's records.
pub(super) fn sync(
    result: PodNetworkResult,
    (notices, omitted_notices): (Vec<ObjectNotice>, usize),
    objects: usize,
    state_dir: &Path,
) -> FinishedSync {
    let isolated: Vec<IsolatedObject> = result.rejected.iter().map(isolated).collect();
    let texts = isolated.iter().map(|isolated| isolated.text.clone());
    let unwritten = result.error.iter().map(|error| error.message.clone()).chain(texts).collect();
    let measurements = PodNetworkMeasurements {
        nodes: result.counts.nodes,
        problems: result.problems,
        rejected: result.rejected.len(),
        is_ready: result.error.is_none(),
        mtu: result.mtu,
        leaked_attachments: result.leaked_attachments,
        addresses: PodAddressSource { state_dir: state_dir.to_owned(), pod_cidrs: result.pod_cidrs },
    };
    FinishedSync {
        results: vec![RulesResult {
            rules: RULES,
            is_full: result.is_full,
            duration: result.took,
            restored: result.restored,
            isolated,
            error: result
                .error
                .map(|error| RulesError { message: error.message, may_restart_help: error.may_restart_help }),
        }],
        objects,
        unwritten,
        notices,
        omitted_notices,
        measurements: Measurements::PodNetwork(measurements),
        ..FinishedSync::default()
    }
}

/// Returns a node of which the kernel rejects an object, as an isolated object.
fn isolated((node, error): (&Name, &String)) -> IsolatedObject {
    IsolatedObject {
        object: ObjectKey { kind: Kind::Node, name: NamespacedName::new("", node.as_str()) },
        cause: IsolationCause::Rejected,
        has_rules: None,
        text: format!("no route to pods of node {node}: {error}"),
    }
}
