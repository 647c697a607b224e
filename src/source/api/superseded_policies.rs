//! Warnings about objects of superseded policy kinds in the API server: AdminNetworkPolicy and BaselineAdminNetworkPolicy.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use kube::client::Body;
use serde_json::Value;
use tokio::time::sleep;

use super::api_event::EventType;
use super::event_recorder::{EventRecorder, START};
use super::limits::{MAX_DISCOVERY_BODY, MAX_OBJECT};
use super::request_error::{RequestError, StatusError};
use super::response::send_request;
use crate::source::connection::Connection;
use crate::source::unsupported_policies::warning;

/// The reason of the Event about the node.
const REASON: &str = "PolicyKindNotEnforced";

/// The group and version of the kinds.
const API_VERSION: &str = "policy.networking.k8s.io/v1alpha1";

const KINDS: [(&str, &str); 2] = [
    ("AdminNetworkPolicy", "adminnetworkpolicies"),
    ("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies"),
];

/// How long the server may take to respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time between two checks.
const CHECK_PERIOD: Duration = Duration::from_mins(5);

/// Warns about each kind once, when the API server has an object of it.
pub(in crate::source) async fn watch(connection: Arc<Connection>, recorder: EventRecorder) {
    let mut unreported = KINDS.to_vec();
    while !unreported.is_empty() {
        if let Ok(served) = served(&connection).await {
            for (kind, plural) in unreported.clone().into_iter().filter(|(_, plural)| served.contains(plural))
            {
                let Some(found) = found(&connection, plural).await else { continue };
                let warning_text = warning(API_VERSION, kind).expect("`KINDS` has superseded kinds only");
                let note = format!("{warning_text} ({found})");
                tracing::warn!(kind, "{note}");
                recorder.node_event(EventType::Warning, [REASON, START], &note);
                unreported.retain(|(other, _)| *other != kind);
            }
        }
        sleep(CHECK_PERIOD).await;
    }
}

/// Returns the served resources of the group and version. Every user may request them (ClusterRole `system:discovery`).
async fn served(connection: &Connection) -> Result<Vec<&'static str>, RequestError> {
    let list = match get(connection, &format!("/apis/{API_VERSION}"), MAX_DISCOVERY_BODY).await {
        Err(RequestError::Rejected(StatusError { code: 404, .. })) => return Ok(Vec::new()),
        response => response?,
    };
    let names =
        list["resources"].as_array().into_iter().flatten().filter_map(|resource| resource["name"].as_str());
    let names: Vec<&str> = names.collect();
    Ok(KINDS.iter().map(|(_, plural)| *plural).filter(|plural| names.contains(plural)).collect())
}

/// Describes the objects of a kind; `None` if there are none, or they cannot be listed.
async fn found(connection: &Connection, plural: &str) -> Option<String> {
    match get(connection, &format!("/apis/{API_VERSION}/{plural}?limit=1"), MAX_OBJECT).await {
        Ok(list) => {
            let first = list.pointer("/items/0/metadata/name")?.as_str()?;
            let more =
                list.pointer("/metadata/remainingItemCount").and_then(Value::as_u64).unwrap_or_default();
            Some(if more > 0 { format!("{first} and {more} more") } else { first.to_owned() })
        }
        Err(RequestError::Rejected(StatusError { code: 403, .. })) => Some(format!(
            "the cluster has the kind; {plural} cannot be listed, so it is unknown whether objects exist"
        )),
        Err(_) => None,
    }
}

/// Returns the response, of at most `max` bytes.
async fn get(connection: &Connection, path: &str, max: usize) -> Result<Value, RequestError> {
    let request = http::Request::get(path).header(ACCEPT, "application/json").body(Body::empty());
    let request = request.expect("the path has valid characters");
    let response = send_request(&connection.client().await?, request, RESPONSE_TIMEOUT).await?;
    let bytes = response.whole(RESPONSE_TIMEOUT, path, max).await?;
    serde_json::from_slice(&bytes).map_err(|error| RequestError::Malformed(format!("{path}: {error}")))
}
