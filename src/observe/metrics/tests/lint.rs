//! Checks of the metrics with `promtool check metrics`.

use std::io::Write;
use std::process::Stdio;

use portcullis_machines::tools;

use super::reference::report_policies;
use super::*;

/// Returns the complaints of promtool about metrics in text form.
fn complaints(text: &str) -> Vec<String> {
    let mut promtool = tools::command("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool runs");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("promtool reads its input");
    let output = promtool.wait_with_output().expect("promtool ends");
    let complaints = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.success(), complaints.is_empty(), "{complaints}");
    complaints.lines().map(str::to_owned).collect()
}

#[test]
fn promtool_accepts_all_metrics() {
    for mode in ProxyMode::ALL {
        let metrics = Metrics::new(mode);
        report_everything(&metrics);
        report_policies(&metrics);
        let traffic = services::render(&[services::example()]).expect("text");
        for text in [metrics.render().expect("text"), traffic] {
            // kube-proxy's gauges with names that end in `_total`.
            let ours = complaints(&text).into_iter().filter(|line| !line.starts_with("kubeproxy_"));
            assert_eq!(ours.collect::<Vec<_>>(), [""; 0], "{mode:?}");
        }
    }
}

#[test]
fn promtool_rejects_a_counter_without_its_suffix() {
    let complaints =
        complaints("# HELP portcullis_syncs Syncs\n# TYPE portcullis_syncs counter\nportcullis_syncs 1\n");
    assert_eq!(complaints, ["portcullis_syncs counter metrics should have \"_total\" suffix"]);
}
