//! The README of the Helm chart, generated from the comments of `values.yaml`; `make bless` regenerates it.

use std::fmt::Write;
use std::{env, fs};

use crate::helm::chart;

const HEAD: &str = "\
# Portcullis chart

Installs Portcullis as the only proxy of a cluster without kube-proxy: a DaemonSet that serves Services on every node and, by default,
enforces NetworkPolicy. [Installing](../../../docs/installing.md) describes the other ways, a first node, and how to go back.

```
helm install portcullis deploy/helm/portcullis --namespace kube-system \\
    --set image.repository=REGISTRY/portcullis --set apiServer.host=192.0.2.1 --set config.clusterCIDR=10.244.0.0/16
```

With Prometheus Operator and Grafana's sidecar, these values install scraping, alerts and the dashboard. The metrics address must not be a
loopback address, and everyone who reaches the nodes can then read the metrics:

```
config: {metricsBindAddress: 0.0.0.0:10249}
podMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true}
```

## Values

This table is generated from [values.yaml](values.yaml). `values.schema.json` rejects unknown values, also in `config`.

| value | default | meaning |
| --- | --- | --- |
";

/// A value, or a group of values.
#[derive(Debug, PartialEq)]
struct Row {
    path: String,
    /// Empty for a group.
    default: String,
    meaning: String,
}

/// Returns the values in a file, each with the comment above it.
fn rows(yaml: &str) -> Vec<Row> {
    let (mut rows, mut parents, mut comment) = (Vec::new(), Vec::<String>::new(), Vec::<&str>::new());
    for line in yaml.lines() {
        let text = line.trim_start();
        if let Some(text) = text.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        if let Some((name, default)) = text.split_once(':') {
            parents.truncate((line.len() - text.len()) / 2);
            parents.push(name.to_owned());
            let row = Row {
                path: parents.join("."),
                default: default.trim().to_owned(),
                meaning: comment.join(" "),
            };
            rows.push(row);
        }
        comment.clear();
    }
    rows
}

fn page(yaml: &str) -> String {
    let mut page = HEAD.to_owned();
    for Row { path, default, meaning } in rows(yaml) {
        if default.is_empty() && meaning.is_empty() {
            continue;
        }
        let default = if default.is_empty() { default } else { format!("`{default}`") };
        writeln!(page, "| `{path}` | {default} | {} |", meaning.replace('|', "\\|")).unwrap();
    }
    page
}

#[test]
fn the_readme_is_written_from_the_values() {
    let read = |file: &str| fs::read_to_string(chart().join(file)).unwrap_or_default();
    let page = page(&read("values.yaml"));
    if env::var_os("BLESS").is_some() {
        fs::write(chart().join("README.md"), &page).unwrap();
    }
    let written = read("README.md");
    let diff = similar::TextDiff::from_lines(written.as_str(), &page);
    let diff = diff.unified_diff().header("README.md", "generated (make bless)").to_string();
    assert!(diff.is_empty(), "{diff}");
}

#[test]
fn comments_belong_to_the_value_below_them() {
    let row = |path: &str, default: &str, meaning: &str| Row {
        path: path.to_owned(),
        default: default.to_owned(),
        meaning: meaning.to_owned(),
    };
    let yaml = "# About the file.\n\na:\n  # One\n  # line.\n  b: [1]\n  c:\n    # Deep.\n    d: \"\"\n# Next.\ne: {f: g}\n";
    let expected = [
        row("a", "", ""),
        row("a.b", "[1]", "One line."),
        row("a.c", "", ""),
        row("a.c.d", "\"\"", "Deep."),
        row("e", "{f: g}", "Next."),
    ];
    assert_eq!(rows(yaml), expected);
}
