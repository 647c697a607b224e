//! The condition `NetworkUnavailable` of this node, which a cloud sets and the network plugin clears.

use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use kube::client::Body;
use portcullis_cluster::Name;
use portcullis_cluster::node::NETWORK_UNAVAILABLE;
use serde_json::{Value, json};

use super::event_recorder::RESPONSE_TIMEOUT;
use super::request_error::{RequestError, StatusError};
use super::response::send_request;
use crate::source::connection::Connection;

/// Sets the condition to false. Other conditions stay: they are merged by type.
pub(super) async fn clear_network_unavailable(connection: &Connection, node: &Name) {
    match patch(connection, node).await {
        Ok(()) => {
            tracing::info!("condition {NETWORK_UNAVAILABLE} of this node cleared: the pod network is ready")
        }
        Err(error) => {
            let hint = match &error {
                RequestError::Rejected(StatusError { code: 403, .. }) => {
                    "; allow this user to patch nodes/status, as deploy/kustomize/cluster does"
                }
                _ => "; retrying with the next sync",
            };
            tracing::warn!(
                "cannot clear the condition {NETWORK_UNAVAILABLE} of this node, so pods are not scheduled to it: {error}{hint}"
            );
        }
    }
}

async fn patch(connection: &Connection, node: &Name) -> Result<(), RequestError> {
    let request = http::Request::patch(format!("/api/v1/nodes/{node}/status"))
        .header(CONTENT_TYPE, "application/strategic-merge-patch+json")
        .body(Body::from(body(Timestamp::now()).to_string().into_bytes()))
        .map_err(|error| RequestError::Malformed(format!("node {node}: invalid name: {error}")))?;
    send_request(&connection.client().await?, request, RESPONSE_TIMEOUT).await.map(drop)
}

fn body(now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"status": {"conditions": [{
        "type": NETWORK_UNAVAILABLE, "status": "False", "reason": "PodNetworkReady",
        "message": "portcullis has set up the pod network of this node",
        "lastTransitionTime": now, "lastHeartbeatTime": now,
    }]}})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;

    use super::*;

    #[test]
    fn the_patch_is_a_part_of_a_node() {
        let now: Timestamp = "2026-11-30T14:55:00.5Z".parse().expect("a time");
        let mut object = body(now);
        object["metadata"] = json!({"name": "node-1"});
        let node: Node = serde_json::from_value(object.clone()).expect("the API's type");
        assert_eq!(
            serde_json::to_value(&node).expect("JSON")["status"],
            object["status"],
            "all fields exist"
        );
        let condition = &object["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "2026-11-30T14:55:00Z");
    }
}
