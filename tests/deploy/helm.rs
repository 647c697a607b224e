//! Runs Helm on the chart.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use portcullis_machines::tools;
use serde_json::Value;

use crate::manifests::{parse, root};

/// Name of the release.
pub(crate) const RELEASE: &str = "portcullis";

/// Returns the folder of the chart.
pub(crate) fn chart() -> PathBuf {
    root().join("deploy/helm/portcullis")
}

/// Runs Helm with the chart, these arguments before it, and values.
///
/// # Errors
/// Returns Helm's error output.
fn helm(arguments: &[&str], values: &Value) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.json");
    fs::write(&file, values.to_string()).unwrap();
    let mut helm: Command = tools::command("helm");
    helm.args(arguments).arg(chart()).args(["--namespace", "kube-system", "--values"]).arg(file);
    // Neither the user's configuration nor a cluster.
    helm.env("HOME", folder.path()).env("KUBECONFIG", folder.path().join("none"));
    let output = helm.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Returns the objects that `helm install` would create with these values.
///
/// # Errors
/// Returns Helm's error output.
pub(crate) fn render(values: &Value) -> Result<Vec<Value>, String> {
    let text = helm(&["template", RELEASE], values)?;
    Ok(parse(text.trim_start_matches("---\n"), "helm template".as_ref()))
}

/// Returns the notes that `helm install` prints with these values.
pub(crate) fn notes(release: &str, values: &Value) -> String {
    let text = helm(&["install", "--dry-run=client", release], values).unwrap();
    text.split_once("\nNOTES:\n").unwrap_or_else(|| panic!("no notes in {text}")).1.to_owned()
}

/// Checks the chart with `helm lint`.
pub(crate) fn lint(values: &Value) {
    if let Err(error) = helm(&["lint", "--strict"], values) {
        panic!("{error}");
    }
}
