//! Endpoints of the health port: `/healthz` and `/livez`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::any;
use http::StatusCode;
use serde::Serialize;

use super::response::{self, JSON};
use crate::moment::Moment;
use crate::observe::health::{Health, HealthStatus};
use crate::observe::metrics::Metrics;

/// Go's zero time, which upstream shows if there was no update yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Response body, with upstream's fields in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyBody>,
    /// All problems, including those that fail neither endpoint. Not in upstream; omitted if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    /// A warning, which is not a failure. Not in upstream; omitted if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

/// Returns the routes of the health port.
pub(super) fn router(health: Arc<Health>, metrics: Metrics) -> Router {
    let (livez_health, livez_metrics) = (health.clone(), metrics.clone());
    let healthz = any(async move || {
        let answer = healthz(&health.status(Moment::now()));
        metrics.healthz_answered(answer.status().as_u16());
        answer
    });
    let livez = any(async move || {
        let answer = livez(&livez_health.status(Moment::now()));
        livez_metrics.livez_answered(answer.status().as_u16());
        answer
    });
    Router::new().route("/healthz", healthz).route("/livez", livez).fallback(response::not_found)
}

/// Handles `/healthz`, by which load balancers decide whether to send traffic to this node.
fn healthz(status: &HealthStatus) -> Response {
    let healthy = status.healthy();
    respond(status, healthy, healthy && status.node_eligible, Some(status.node_eligible))
}

/// Handles `/livez`, by which the kubelet decides whether to restart the proxy. Silence of the API server or deletion of
/// the node does not fail it, because a restart would not help.
fn livez(status: &HealthStatus) -> Response {
    respond(status, status.live(), status.live(), None)
}

fn respond(status: &HealthStatus, healthy: bool, is_success: bool, node_eligible: Option<bool>) -> Response {
    // While healthy, upstream shows the time of the request as the last update.
    let last_updated = if is_success { Some(status.now) } else { status.last_synced() };
    let shown = status.service_rules().filter(|rules| rules.last_synced.is_some() || rules.problem.is_some());
    let families = shown.map(|rules| {
        let healthy = rules.problem.is_none();
        (rules.rules, FamilyBody { last_updated: time(rules.last_synced), healthy })
    });
    let body = Body {
        last_updated: time(last_updated),
        current_time: time(Some(status.now)),
        node_eligible,
        healthy,
        status: families.collect(),
        problems: status.problems().collect(),
        warning: status.warning.clone(),
    };
    let body = serde_json::to_string(&body).expect("strings and booleans can be serialized as JSON");
    let code = if is_success { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response::nosniff(code, JSON, body)
}

fn time(moment: Option<Moment>) -> String {
    moment.map_or_else(|| NEVER.to_owned(), |moment| moment.wall().to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::control::{ControllerName, SyncFailure, SyncHistory};
    use crate::observe::health::Limits;

    async fn read(answer: Response) -> (u16, String) {
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.expect("a body in memory");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn bodies() {
        let start = "2026-11-21T05:00:15.35Z".parse().expect("a time");
        let start = Moment::new(start, Instant::now());
        let health = Health::new(Limits::new(Duration::from_secs(30), true), start, Arc::default());
        let services = ControllerName::SERVICES;
        let mut syncs = ["IPv4", "IPv6"].map(SyncHistory::new);
        health.set_syncs(services, syncs.to_vec(), false);
        let both = async |now| {
            let status = health.status(now);
            (read(healthz(&status)).await, read(livez(&status)).await)
        };

        let (ready, live) = both(start).await;
        let expected = r#"{"lastUpdated":"2026-11-21T05:00:15.35Z","currentTime":"2026-11-21T05:00:15.35Z","nodeEligible":true,"healthy":true}"#;
        assert_eq!(ready, (200, expected.to_owned()));
        assert_eq!(live, (200, expected.replace(r#""nodeEligible":true,"#, "")));

        let (second, third) = (start + Duration::from_secs(1), start + Duration::from_secs(17));
        health.watch_source(move || Some(second.monotonic()));
        syncs[0].succeeded(start);
        syncs[1].failed(SyncFailure { at: second, error: "no".to_owned(), may_restart_help: true });
        health.set_syncs(services, syncs.to_vec(), false);
        health.set_node_eligible(false);
        let (ready, live) = both(third).await;
        let expected = concat!(
            r#"{"lastUpdated":"2026-11-21T05:00:15.35Z","currentTime":"2026-11-21T05:00:32.35Z","nodeEligible":false,"#,
            r#""healthy":false,"status":{"IPv4":{"lastUpdated":"2026-11-21T05:00:15.35Z","healthy":true},"#,
            r#""IPv6":{"lastUpdated":"0001-01-01T00:00:00Z","healthy":false}},"#,
            r#""problems":["IPv6: the last sync failed at 2026-11-21T05:00:16.35Z: no"]}"#
        );
        assert_eq!(ready, (503, expected.to_owned()));
        assert_eq!(live, (503, expected.replace(r#""nodeEligible":false,"#, "")));

        syncs[1].succeeded(third);
        health.set_syncs(services, syncs.to_vec(), false);
        let (ready, live) = both(third).await;
        let expected = concat!(
            r#"{"lastUpdated":"2026-11-21T05:00:32.35Z","currentTime":"2026-11-21T05:00:32.35Z","nodeEligible":false,"#,
            r#""healthy":true,"status":{"IPv4":{"lastUpdated":"2026-11-21T05:00:15.35Z","healthy":true},"#,
            r#""IPv6":{"lastUpdated":"2026-11-21T05:00:32.35Z","healthy":true}}}"#
        );
        assert_eq!(ready, (503, expected.to_owned()), "the node is not eligible");
        assert_eq!(live, (200, expected.replace(r#""nodeEligible":false,"#, "")));

        health.set_node_eligible(true);
        let silent = start + Duration::from_secs(400);
        let (ready, live) = both(silent).await;
        let problem = r#""problems":["no message from the API server for 399 s"]"#;
        assert!(
            ready.0 == 503 && ready.1.contains(r#""healthy":false"#) && ready.1.contains(problem),
            "{ready:?}"
        );
        assert!(
            live.0 == 200 && live.1.contains(r#""healthy":true"#) && live.1.contains(problem),
            "{live:?}"
        );
    }
}
