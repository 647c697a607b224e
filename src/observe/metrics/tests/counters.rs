//! Test that counters start at 0: Prometheus computes the increase of a counter from its first sample, so the first event of a
//! counter that appears with the value 1 is not seen.

use std::collections::BTreeSet;

use prometheus::proto::MetricType;

use super::reference::report_policies;
use super::*;

/// Labels with names of objects, whose values are not known at the start.
const OBJECT_LABELS: [&str; 4] = ["policy", "service_name", "service_namespace", "port_name"];

/// Returns the counters and histograms of a daemon, as name and labels.
fn counters(metrics: &Metrics) -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    for family in metrics.0.registry.gather() {
        if family.get_field_type() == MetricType::GAUGE {
            continue;
        }
        for metric in family.get_metric() {
            let labels = metric.get_label();
            if !labels.iter().any(|label| OBJECT_LABELS.contains(&label.name())) {
                let labels = labels.iter().map(|label| format!("{}={:?}", label.name(), label.value()));
                series.insert(format!("{}{{{}}}", family.name(), labels.collect::<Vec<_>>().join(",")));
            }
        }
    }
    series
}

#[test]
fn every_counter_is_exported_from_the_start() {
    for mode in ProxyMode::ALL {
        let metrics = Metrics::new(mode);
        metrics.declare_syncs(ControllerName::SERVICES, &Family::BOTH.map(Family::as_str));
        metrics.declare_syncs(ControllerName::POLICIES, &["policies"]);
        metrics.read_source(|| vec![KindStatus { failures: 0, lists: 0, ..status(Kind::Service) }]);
        metrics.read_packet_counters(|| Some(0), || Some(0));
        metrics.read_dropped_log_lines(|| 0);
        metrics.read_omitted(|| 0, || 0);
        let before = counters(&metrics);
        assert!(before.len() > 50, "{before:#?}");

        report_everything(&metrics);
        report_policies(&metrics);
        for controller in [ControllerName::SERVICES, ControllerName::POLICIES] {
            for has_succeeded in [true, false] {
                metrics.controller_synced(controller.label, has_succeeded, Duration::from_secs(1));
            }
        }
        for status in [200, 503] {
            metrics.healthz_answered(status);
            metrics.livez_answered(status);
        }
        metrics.policies_synced(false, Duration::from_secs(1), UNIX_EPOCH);
        let after = counters(&metrics);
        let late: Vec<&String> = after.difference(&before).collect();
        assert_eq!(late, [""; 0], "{mode:?}: counters without a value at the start");
    }
}

#[test]
fn families_that_are_not_served_have_no_counters() {
    let metrics = Metrics::new(ProxyMode::Nftables);
    metrics.declare_syncs(ControllerName::SERVICES, &[Family::V4.as_str()]);
    let of =
        |family: Family| counters(&metrics).iter().filter(|series| series.contains(family.as_str())).count();
    assert!(of(Family::V4) > 5);
    assert_eq!(of(Family::V6), 0);
}
