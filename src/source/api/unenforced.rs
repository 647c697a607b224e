//! Policies that the API server holds and that are not enforced: AdminNetworkPolicy and BaselineAdminNetworkPolicy.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use kube::client::Body;
use serde_json::Value;
use tokio::time::sleep;

use super::answer::ask;
use super::events::{Recorder, START};
use super::failure::{Failure, Refusal};
use super::notice::Severity;
use crate::source::access::Connection;
use crate::source::unenforced::warning;

/// The reason of the Event about the node.
const REASON: &str = "PolicyKindNotEnforced";

/// The group and version of the kinds.
const API_VERSION: &str = "policy.networking.k8s.io/v1alpha1";

const KINDS: [(&str, &str); 2] = [
    ("AdminNetworkPolicy", "adminnetworkpolicies"),
    ("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies"),
];

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time between two looks at the API server.
const INTERVAL: Duration = Duration::from_mins(5);

/// Warns of each kind once, as soon as the API server has an object of it.
pub(in crate::source) async fn follow(connection: Arc<Connection>, recorder: Recorder) {
    let mut silent = KINDS.to_vec();
    while !silent.is_empty() {
        if let Ok(served) = served(&connection).await {
            for (kind, plural) in silent.clone().into_iter().filter(|(_, plural)| served.contains(plural)) {
                let Some(found) = found(&connection, plural).await else { continue };
                let words = warning(API_VERSION, kind).expect("it is one of the kinds that were superseded");
                let note = format!("{words} ({found})");
                tracing::warn!(kind, "{note}");
                recorder.of_node(Severity::Warning, [REASON, START], &note);
                silent.retain(|(other, _)| *other != kind);
            }
        }
        sleep(INTERVAL).await;
    }
}

/// The resources of the group and version; none where the API server does not have it. Every user may ask
/// (ClusterRole `system:discovery`).
async fn served(connection: &Connection) -> Result<Vec<&'static str>, Failure> {
    let list = match get(connection, &format!("/apis/{API_VERSION}")).await {
        Err(Failure::Refused(Refusal { code: 404, .. })) => return Ok(Vec::new()),
        answer => answer?,
    };
    let names =
        list["resources"].as_array().into_iter().flatten().filter_map(|resource| resource["name"].as_str());
    let names: Vec<&str> = names.collect();
    Ok(KINDS.iter().map(|(_, plural)| *plural).filter(|plural| names.contains(plural)).collect())
}

/// Which objects of a kind there are, in words; `None` if there is none, or the API server does not say.
async fn found(connection: &Connection, plural: &str) -> Option<String> {
    match get(connection, &format!("/apis/{API_VERSION}/{plural}?limit=1")).await {
        Ok(list) => {
            let first = list.pointer("/items/0/metadata/name")?.as_str()?;
            let more =
                list.pointer("/metadata/remainingItemCount").and_then(Value::as_u64).unwrap_or_default();
            Some(if more > 0 { format!("{first} and {more} more") } else { first.to_owned() })
        }
        Err(Failure::Refused(Refusal { code: 403, .. })) => Some(format!(
            "the cluster has the kind; whether it has objects is not known, as {plural} cannot be listed"
        )),
        Err(_) => None,
    }
}

async fn get(connection: &Connection, path: &str) -> Result<Value, Failure> {
    let request = http::Request::get(path).header(ACCEPT, "application/json").body(Body::empty());
    let request = request.expect("the path is a constant of valid characters");
    let answer = ask(&connection.client().await?, request, PATIENCE).await?;
    let bytes = answer.whole(PATIENCE, || {}).await?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Garbage(format!("{path}: {error}")))
}
