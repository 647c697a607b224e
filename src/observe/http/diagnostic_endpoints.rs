//! Endpoints of the metrics port: `/metrics`, `/metrics/services`, and kube-proxy's diagnostic endpoints.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::any;
use http::StatusCode;

use super::response::{self, JSON, PLAIN};
use super::service_metrics::ServiceTraffic;
use crate::moment::Moment;
use crate::observe::metrics::{CONTENT_TYPE, KUBERNETES_MINOR, Metrics};

/// Content of the diagnostic endpoints.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// Name of the proxy mode.
    pub proxy_mode: &'static str,
    /// The configuration as a `KubeProxyConfiguration`: a JSON object.
    pub configuration: String,
    /// Flags and their values, sorted.
    pub flags: Vec<(String, String)>,
    /// Start time of the process.
    pub started: Moment,
    /// Version of the program.
    pub version: &'static str,
    /// Reader of the Services' traffic counters.
    pub service_traffic: ServiceTraffic,
}

/// First lines of `/statusz` and `/flagz`, as upstream.
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting \
                       compatibility guarantees and is for debugging purposes only.";

/// Returns the routes of the metrics port.
pub(super) fn router(diagnostics: Diagnostics, metrics: Metrics) -> Router {
    let diagnostics = Arc::new(diagnostics);
    let configz = format!(r#"{{"kubeproxy.config.k8s.io":{}}}"#, diagnostics.configuration);
    let flagz = flagz(&diagnostics);
    let (status, mode, traffic) =
        (diagnostics.clone(), diagnostics.proxy_mode, diagnostics.service_traffic.clone());
    let ok = StatusCode::OK;
    Router::new()
        .route("/metrics", any(async move || render(&metrics)))
        .route("/metrics/services", any(async move || traffic.respond().await))
        .route("/healthz", any(async move || response::nosniff(ok, PLAIN, "ok")))
        .route("/proxyMode", any(async move || response::nosniff(ok, PLAIN, mode)))
        .route("/configz", any(async move || response::nosniff(ok, JSON, configz.clone())))
        .route("/flagz", any(async move || response::with_type(ok, PLAIN, flagz.clone())))
        .route("/statusz", any(async move || response::with_type(ok, PLAIN, statusz(&status, Moment::now()))))
        .fallback(response::not_found)
}

fn render(metrics: &Metrics) -> Response {
    match metrics.render() {
        Ok(text) => response::with_type(StatusCode::OK, CONTENT_TYPE, text),
        Err(error) => {
            let message = format!("cannot encode metrics: {error}\n");
            response::nosniff(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, message)
        }
    }
}

fn flagz(diagnostics: &Diagnostics) -> String {
    let mut text = format!("\nkube-proxy flagz\n{WARNING}\n");
    for (name, value) in &diagnostics.flags {
        writeln!(text, "{name}={value}").expect("writing to a string does not fail");
    }
    text
}

fn statusz(diagnostics: &Diagnostics, now: Moment) -> String {
    let Diagnostics { started, version, .. } = diagnostics;
    format!(
        "\nkube-proxy statusz\n{WARNING}\n\n\
         Started: {}\n\
         Up: {}\n\
         Binary version: portcullis {version}\n\
         Emulation version: 1.{KUBERNETES_MINOR}\n\
         Paths: /configz /flagz /healthz /metrics /proxyMode\n",
        started.wall().strftime("%a %b %e %H:%M:%S UTC %Y"),
        hours_minutes_seconds(now.since(*started)),
    )
}

/// Formats the uptime for `/statusz`.
fn hours_minutes_seconds(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn status() {
        let started = Moment::new("2026-11-01T05:00:13.9Z".parse().expect("a time"), Instant::now());
        let diagnostics = Diagnostics {
            proxy_mode: "iptables",
            configuration: "{}".to_owned(),
            flags: vec![("v".to_owned(), "0".to_owned()), ("vmodule".to_owned(), String::new())],
            started,
            version: "0.1.0",
            service_traffic: ServiceTraffic::channel().0,
        };
        let text = statusz(&diagnostics, started + Duration::from_secs(2 * 3600 + 3 * 60 + 4));
        let expected = "\nStarted: Sun Nov  1 05:00:13 UTC 2026\nUp: 2 hr 03 min 04 sec\n";
        assert!(text.contains(expected), "{text}");
        assert!(flagz(&diagnostics).ends_with("only.\nv=0\nvmodule=\n"));
    }
}
