//! What is on the metrics port: `/metrics`, and what kube-proxy tells of itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::any;
use http::StatusCode;

use super::moment::Moment;
use super::response::{self, JSON, PLAIN};
use super::service_metrics::ServiceTraffic;
use crate::metrics::{CONTENT_TYPE, KUBERNETES_MINOR, Metrics};

/// What the program tells of itself.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The mode, as `--proxy-mode` takes it.
    pub proxy_mode: &'static str,
    /// The configuration as a `KubeProxyConfiguration`: a JSON object.
    pub configuration: String,
    /// Every flag and its value, in order.
    pub flags: Vec<(String, String)>,
    /// When the program started.
    pub started: Moment,
    /// Its version.
    pub version: &'static str,
    /// Tells what Services have served.
    pub service_traffic: ServiceTraffic,
}

/// Said at the top of `/statusz` and `/flagz`, as upstream says it.
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting \
                       compatibility guarantees and is for debugging purposes only.";

/// The routes of the metrics port.
pub(super) fn router(diagnostics: Diagnostics, metrics: Metrics) -> Router {
    let told = Arc::new(diagnostics);
    let configz = format!(r#"{{"kubeproxy.config.k8s.io":{}}}"#, told.configuration);
    let flagz = flagz(&told);
    let (status, mode, traffic) = (told.clone(), told.proxy_mode, told.service_traffic.clone());
    let ok = StatusCode::OK;
    Router::new()
        .route("/metrics", any(async move || render(&metrics)))
        .route("/metrics/services", any(async move || traffic.answer().await))
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
            let message = format!("metrics cannot be written: {error}\n");
            response::nosniff(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, message)
        }
    }
}

fn flagz(told: &Diagnostics) -> String {
    let mut text = format!("\nkube-proxy flagz\n{WARNING}\n");
    for (name, value) in &told.flags {
        writeln!(text, "{name}={value}").expect("a string takes all");
    }
    text
}

fn statusz(told: &Diagnostics, now: Moment) -> String {
    let Diagnostics { started, version, .. } = told;
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

/// As `/statusz` shows how long the program is up.
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
        let told = Diagnostics {
            proxy_mode: "iptables",
            configuration: "{}".to_owned(),
            flags: vec![("v".to_owned(), "0".to_owned()), ("vmodule".to_owned(), String::new())],
            started,
            version: "0.1.0",
            service_traffic: ServiceTraffic::channel().0,
        };
        let text = statusz(&told, started + Duration::from_secs(2 * 3600 + 3 * 60 + 4));
        let expected = "\nStarted: Sun Nov  1 05:00:13 UTC 2026\nUp: 2 hr 03 min 04 sec\n";
        assert!(text.contains(expected), "{text}");
        assert!(flagz(&told).ends_with("only.\nv=0\nvmodule=\n"));
    }
}
