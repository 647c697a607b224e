//! `kubernetes_build_info`: version of the program.

use super::register::Registrar;
use crate::version;

/// Minor version of the Kubernetes release whose kube-proxy Portcullis replaces.
pub const KUBERNETES_MINOR: u32 = 36;

/// Returns the version in `kubernetes_build_info`: kube-proxy's, with Portcullis' as build metadata, so that
/// alerts on version skew between components work as with kube-proxy.
pub fn git_version() -> String {
    format!("v1.{KUBERNETES_MINOR}.0+portcullis.{}", version::VERSION)
}

pub(super) fn register(to: Registrar<'_>) {
    let labels: [(&str, &str); 9] = [
        ("build_date", ""),
        ("compiler", "rustc"),
        ("git_commit", version::COMMIT.unwrap_or_default()),
        ("git_tree_state", ""),
        ("git_version", &git_version()),
        ("go_version", ""),
        ("major", "1"),
        ("minor", &KUBERNETES_MINOR.to_string()),
        ("platform", &format!("{}/{}", std::env::consts::OS, go_architecture())),
    ];
    let info = to.gauges(
        "kubernetes_build_info",
        "Version of the program, always 1; labels not recorded at build time are empty",
        &labels.map(|(name, _)| name),
    );
    info.with_label_values(&labels.map(|(_, value)| value)).set(1.0);
}

/// Returns Go's name of the CPU architecture.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
