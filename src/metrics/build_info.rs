//! `kubernetes_build_info`: which program this is.

use super::register::Registrar;

/// The minor version of Kubernetes whose kube-proxy this stands in for.
pub const KUBERNETES_MINOR: u32 = 36;

/// The version in `kubernetes_build_info`: that of kube-proxy, with ours as build metadata, so that
/// alerts on a skew between components judge it as they would judge kube-proxy.
pub fn git_version() -> String {
    format!("v1.{KUBERNETES_MINOR}.0+portcullis.{}", env!("CARGO_PKG_VERSION"))
}

pub(super) fn register(to: Registrar<'_>) {
    let labels: [(&str, &str); 9] = [
        ("build_date", ""),
        ("compiler", "rustc"),
        ("git_commit", ""),
        ("git_tree_state", ""),
        ("git_version", &git_version()),
        ("go_version", ""),
        ("major", "1"),
        ("minor", &KUBERNETES_MINOR.to_string()),
        ("platform", &format!("{}/{}", std::env::consts::OS, go_architecture())),
    ];
    let info = to.gauges(
        "kubernetes_build_info",
        "The program's version: always 1; what was not recorded when it was built is empty",
        &labels.map(|(name, _)| name),
    );
    info.with_label_values(&labels.map(|(_, value)| value)).set(1.0);
}

/// The processor's name as Go, and so Kubernetes, calls it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
