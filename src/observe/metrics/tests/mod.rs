//! Tests of the metrics against the recorded metrics of kube-proxy.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use portcullis_cluster::Kind;

use super::*;

mod counters;
mod lint;
mod reference;

/// Type, labels and buckets of a metric, as recorded from kube-proxy.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    kind: String,
    labels: BTreeSet<String>,
    buckets: Vec<String>,
}

/// Sets a value for every metric.
fn report_everything(metrics: &Metrics) {
    for family in Family::BOTH {
        let second = Duration::from_secs(1);
        metrics.sync_queued(family, UNIX_EPOCH + second);
        metrics.sync_ended(family, SyncScope::Full, second);
        metrics.sync_ended(family, SyncScope::Partial, second);
        metrics.synced(family, UNIX_EPOCH + second);
        metrics.sync_failed(family);
        metrics.network_programmed(family, second);
        metrics.set_no_local_endpoints(family, TrafficPolicyField::Internal, 1);
        metrics.set_no_local_endpoints(family, TrafficPolicyField::External, 2);
        metrics.restore_failed(family, SyncScope::Full);
        metrics.restore_failed(family, SyncScope::Partial);
        metrics.set_iptables_rules(family, "nat", 10, 5);
        metrics.conntrack_reconciled(family, second, 3);
        metrics.set_isolated(family, &[], &[NamespacedName::new("default", "web")]);
        metrics.drift_restored(family, 1);
    }
    metrics.set_unserved_frontends(1, 2);
    for kind in [Kind::Service, Kind::EndpointSlice] {
        metrics.changed(kind, 2);
        metrics.set_pending(kind, 1);
    }
    metrics.controller_synced("services", true, Duration::from_secs(1));
    metrics.set_isolated_objects("services", 1);
    metrics.set_oldest_change("services", Some(UNIX_EPOCH));
    metrics.read_packet_counters(|| Some(4), || Some(5));
    metrics.read_dropped_log_lines(|| 6);
    metrics.read_omitted(|| 7, || 8);
    metrics.set_contention("services", true);
    metrics.healthz_answered(200);
    metrics.livez_answered(503);
    metrics.read_source(|| vec![status(Kind::Service)]);
}

fn status(kind: Kind) -> KindStatus {
    KindStatus {
        kind,
        last_contact: Some(Instant::now()),
        synced: true,
        is_unserved: false,
        error: None,
        failures: 2,
        lists: 1,
        unreadable: 3,
        with_problems: 4,
    }
}

/// Returns the shape of a metric in a text; `None` if it is absent.
fn shape(text: &str, name: &str) -> Option<Shape> {
    let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))?.to_owned();
    let sample_name = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
    let (mut labels, mut buckets) = (BTreeSet::new(), Vec::new());
    for line in text.lines().filter_map(|line| line.strip_prefix(&sample_name)) {
        let pairs =
            line.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(pairs, _)| pairs);
        for (label, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
            match (label, value.trim_matches('"')) {
                ("le", bound) if buckets.iter().any(|known| known == bound) => {}
                ("le", bound) => buckets.push(bound.to_owned()),
                (label, _) => {
                    labels.insert(label.to_owned());
                }
            }
        }
    }
    Some(Shape { kind, labels, buckets })
}

/// Returns the metrics recorded in this mode with this name prefix.
fn recorded(mode: &str, prefix: &str) -> Vec<(String, Shape)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/kube-proxy/metrics.tsv");
    let table = fs::read_to_string(path).expect("the recording is there");
    let words = |text: &str, at| text.split(at).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let rows = table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row[4].split(',').any(|seen| seen == mode) && row[0].starts_with(prefix))
        .map(|row| {
            let labels: Vec<String> = words(row[2], ',');
            let labels = labels.into_iter().collect();
            (row[0].to_owned(), Shape { kind: row[1].to_owned(), labels, buckets: words(row[3], ' ') })
        })
        .collect()
}

#[test]
fn kube_proxys_metrics_have_its_names_types_labels_and_buckets() {
    let modes = [(ProxyMode::Iptables, "iptables", 13), (ProxyMode::Nftables, "nftables", 9)];
    for (mode, name, count) in modes {
        let metrics = Metrics::new(mode);
        report_everything(&metrics);
        let text = metrics.render().expect("text");
        let mut of_kube_proxy = recorded(name, "kubeproxy_");
        assert_eq!(of_kube_proxy.len(), count, "{name}");
        of_kube_proxy.extend(recorded(name, "process_"));
        of_kube_proxy.extend(recorded(name, "kubernetes_build_info"));
        for (metric, expected) in of_kube_proxy {
            assert_eq!(shape(&text, &metric).as_ref(), Some(&expected), "{metric} in {name} mode");
        }
    }
}

#[test]
fn metrics_of_other_modes_are_absent() {
    let rows: &[(ProxyMode, &[&str])] = &[
        (ProxyMode::Iptables, &[]),
        (
            ProxyMode::Ipvs,
            &[
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "kubeproxy_sync_proxy_rules_iptables_total",
                "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
                "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
            ],
        ),
        (
            ProxyMode::Nftables,
            &[
                "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
                "kubeproxy_sync_proxy_rules_iptables_last",
                "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
            ],
        ),
    ];
    for (mode, absent) in rows {
        let metrics = Metrics::new(*mode);
        report_everything(&metrics);
        let text = metrics.render().expect("text");
        for name in *absent {
            assert_eq!(shape(&text, name), None, "{name} in {mode:?}");
        }
        assert!(text.contains("kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 2"));
    }
}

#[test]
fn recorded_values_are_rendered() {
    let metrics = Metrics::new(ProxyMode::Iptables);
    report_everything(&metrics);
    let text = metrics.render().expect("text");
    let expected = "\
kubeproxy_iptables_ct_state_invalid_dropped_packets_total 4
kubeproxy_iptables_localhost_nodeports_accepted_packets_total 5
kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0\"} 0
kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.5\"} 0
kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"1\"} 1
kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"115\"} 1
kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"300\"} 1
kubeproxy_proxy_healthz_total{code=\"200\"} 1
kubeproxy_proxy_livez_total{code=\"503\"} 1
kubeproxy_sync_proxy_rules_iptables_last{ip_family=\"IPv4\",table=\"nat\"} 5
kubeproxy_sync_proxy_rules_iptables_total{ip_family=\"IPv4\",table=\"nat\"} 10
kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv6\"} 1
kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv6\"} 1
kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 2
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 1
kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 3
portcullis_object_problems{kind=\"Service\",problem=\"field\"} 4
portcullis_object_problems{kind=\"Service\",problem=\"unreadable\"} 3
portcullis_service_sync_errors{ip_family=\"IPv4\",service_name=\"web\",service_namespace=\"default\"} 1
portcullis_source_synced{kind=\"Service\"} 1";
    for line in expected.lines() {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn counters_without_a_reader_or_a_value_are_absent() {
    let metrics = Metrics::new(ProxyMode::Iptables);
    let name = "kubeproxy_iptables_ct_state_invalid_dropped_packets_total";
    assert_eq!(shape(&metrics.render().expect("text"), name), None);
    metrics.read_packet_counters(|| None, || Some(0));
    let text = metrics.render().expect("text");
    assert_eq!(shape(&text, name), None);
    assert!(text.contains("kubeproxy_iptables_localhost_nodeports_accepted_packets_total 0\n"));
}

#[test]
fn a_recovered_service_is_removed_from_the_metrics() {
    let metrics = Metrics::new(ProxyMode::Iptables);
    let (a, b) = (NamespacedName::new("x", "a"), NamespacedName::new("x", "b"));
    metrics.set_isolated(Family::V4, &[], &[a.clone(), b.clone()]);
    metrics.set_isolated(Family::V4, &[a, b.clone()], &[b]);
    let text = metrics.render().expect("text");
    assert!(!text.contains("service_name=\"a\""), "{text}");
    assert!(text.contains("service_name=\"b\""), "{text}");
}

#[test]
fn isolated_services_of_one_namespace_do_not_displace_those_of_others() {
    let metrics = Metrics::new(ProxyMode::Iptables);
    let noisy = (0..5000).map(|number| NamespacedName::new("noisy", &format!("s{number:04}")));
    let quiet = (0..10).map(|number| NamespacedName::new("quiet", &format!("s{number}")));
    let all: Vec<NamespacedName> = noisy.chain(quiet).collect();
    metrics.set_isolated(Family::V4, &[], &all);
    let text = metrics.render().expect("text");
    let series = |text: &str, namespace: &str| {
        let label = format!("service_namespace=\"{namespace}\"");
        text.lines()
            .filter(|line| line.starts_with("portcullis_service_sync_errors{") && line.contains(&label))
            .count()
    };
    assert_eq!((series(&text, "noisy"), series(&text, "quiet")), (90, 10));
    assert!(text.contains("portcullis_service_sync_errors_omitted{ip_family=\"IPv4\"} 4910\n"), "{text}");

    // The namespaces share the limit in another way, and all series of before are removed.
    metrics.set_isolated(Family::V4, &all, &all[4000..]);
    let text = metrics.render().expect("text");
    assert_eq!((series(&text, "noisy"), series(&text, "quiet")), (90, 10));
    assert!(!text.contains("service_name=\"s0001\""), "{text}");
    metrics.set_isolated(Family::V4, &all[4000..], &[]);
    let text = metrics.render().expect("text");
    assert_eq!((series(&text, "noisy"), series(&text, "quiet")), (0, 0));
    assert!(text.contains("portcullis_service_sync_errors_omitted{ip_family=\"IPv4\"} 0\n"), "{text}");
}

#[test]
fn dropped_packets_of_many_policies_are_limited_and_the_rest_is_counted() {
    use portcullis_policy::table::{DropCounter, DropLabels};
    let metrics = Metrics::new(ProxyMode::Nftables);
    metrics.read_policy_drops(false, || {
        let counter = |policy: String| DropCounter {
            labels: DropLabels { direction: "ingress", policy },
            packets: 1,
            bytes: 2,
        };
        let noisy = (0..50_000).map(|number| counter(format!("noisy/p{number}")));
        noisy.chain([counter("quiet/p".to_owned()), counter("other protocols".to_owned())]).collect()
    });
    let text = metrics.render().expect("text");
    let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(series("portcullis_network_policy_dropped_packets_total"), 2000);
    assert_eq!(series("portcullis_network_policy_dropped_bytes_total"), 2000);
    assert!(text.contains("policy=\"quiet/p\"") && text.contains("policy=\"other protocols\""));
    assert!(text.contains("portcullis_network_policy_dropped_series_omitted 48002\n"));
}

#[test]
fn traffic_metrics_of_many_service_ports_are_limited() {
    let example = services::example();
    let port = |namespace: &str, number: usize| {
        let mut traffic = services::example();
        traffic.port.service = NamespacedName::new(namespace, &format!("s{number}"));
        traffic
    };
    let noisy = (0..300).map(|number| port("noisy", number));
    let all: Vec<_> = noisy.chain([port("quiet", 1), example]).collect();
    let text = TextEncoder::new().encode_to_string(&services::registry(&all, 200).gather()).expect("text");
    let ports = text.lines().filter(|line| line.starts_with("portcullis_service_connections_total{")).count();
    assert_eq!(ports, 200);
    assert!(text.contains("service_namespace=\"quiet\"") && text.contains("service_namespace=\"shop\""));
    assert!(text.contains("portcullis_service_ports_omitted 102\n"), "the rest is counted");
}
