//! Tests of `docs/metrics.md`, which is generated from the registered metrics (`make bless`), and of the metrics used in
//! deploy/.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use portcullis_podnet::addresses::AddressUsage;
use portcullis_policy::table::{DropCounter, DropLabels, EvaluationCounts};
use prometheus::proto::MetricType;

use super::*;
use crate::generated_docs::assert_current;

const HEAD: &str = "\
# Metrics

Metrics are served at `/metrics` on the metrics address, by default 127.0.0.1:10249, in Prometheus' text format. This page
is generated from the registered metrics. Names, types, labels and buckets of `kubeproxy_*` and `process_*` are those of
kube-proxy v1.36, so that dashboards and alerts keep working; [differences.md](differences.md#metrics) lists the metrics of
kube-proxy that Portcullis does not have. `portcullis_*` are Portcullis' own metrics;
[operating.md](operating.md#metrics) explains how to react to each. Alert rules and a Grafana dashboard are in
[deploy/monitoring](../deploy/monitoring).

Counters and histograms are exported from the start with the value 0, in each mode and for each IP family that is served, so
that the first event is an increase; only those with names of objects as labels appear later. A gauge with labels is absent
until it has a value. NetworkPolicy metrics are 0 or absent without `--network-policy`.
";

const SERVICES: &str = "\
These metrics have a separate endpoint, `/metrics/services`, because there are up to five series for each port of each
Service. Each scrape reads the kernel's counters. In ipvs mode, these are the
counters of the virtual servers, which count every packet and are read in one dump. In iptables mode, these are the counters
of the rules that jump to a Service's chains, which only the first packet of a connection passes; reading them takes two
runs of the tool for each IP family, which for 10,000 Services takes about as long as a sync. nftables mode counts every packet
with [`--nftables-service-counters`](nftables.md#traffic-counters), which costs each packet two lookups, and responds with 404
without. In large clusters, scrape rarely: rules are not written while the counters are read.

A counter starts with the kernel's count at the first scrape, and increases for as long as the Service port exists, even if
its addresses and rules change. Traffic between the last scrape and a change of the Service itself, which recreates its rules
or virtual servers, is not counted; endpoint changes do not matter.

";

/// A metric as scraped.
struct Metric {
    kind: &'static str,
    labels: BTreeSet<String>,
    help: String,
    modes: Vec<&'static str>,
}

/// Returns all metrics of all modes, each with a value.
fn all() -> BTreeMap<String, Metric> {
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    for mode in ProxyMode::ALL {
        let metrics = Metrics::new(mode);
        report_everything(&metrics);
        report_policies(&metrics);
        let served = services::registry(&[services::example()], 1);
        let families = metrics.0.registry.gather().into_iter();
        for family in families.chain(served.gather().into_iter().filter(|f| is_counted(f.name(), mode))) {
            let pairs = family.get_metric().iter().flat_map(|metric| metric.get_label());
            let labels = pairs.map(|pair| pair.name().to_owned()).collect();
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                other => panic!("{}: unexpected type {other:?}", family.name()),
            };
            let new = || Metric { kind, labels, help: family.help().to_owned(), modes: Vec::new() };
            all.entry(family.name().to_owned()).or_insert_with(new).modes.push(mode.name());
        }
    }
    all
}

/// Returns true if a mode has this traffic metric.
fn is_counted(name: &str, mode: ProxyMode) -> bool {
    match mode {
        ProxyMode::Ipvs | ProxyMode::Nftables => true,
        ProxyMode::Iptables => {
            matches!(name, "portcullis_service_connections_total" | "portcullis_service_ports_omitted")
        }
    }
}

pub(super) fn report_policies(metrics: &Metrics) {
    metrics.policies_synced(true, Duration::from_secs(1), UNIX_EPOCH);
    metrics.set_policy_pods(2, 1);
    metrics.set_policy_evaluation(&EvaluationCounts::default());
    metrics.read_spoofed_packets(|| 1);
    let range = "10.244.1.0/24".parse().expect("a range");
    metrics.read_pod_addresses(move || vec![AddressUsage { range, held: 100, elsewhere: 3 }]);
    let labels = DropLabels { direction: "ingress", policy: "shop/web".to_owned() };
    metrics.read_policy_drops(false, move || {
        vec![DropCounter { labels: labels.clone(), packets: 1, bytes: 60 }]
    });
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let all = all();
    let served = services::registry(&[services::example()], 1).gather();
    let section = |name: &str| match () {
        () if served.iter().any(|family| family.name() == name) => Section::Services,
        () if name.starts_with("portcullis_") => Section::Portcullis,
        () if name.starts_with("process_") => Section::Process,
        () => Section::KubeProxy,
    };
    for (title, of, about) in [
        ("kube-proxy's metrics", Section::KubeProxy, ""),
        ("Portcullis' own metrics", Section::Portcullis, ""),
        ("Service traffic", Section::Services, SERVICES),
        ("Process", Section::Process, ""),
    ] {
        write!(page, "\n## {title}\n\n{about}").expect("a String takes everything");
        page += "| name | type | labels | modes | meaning |\n| --- | --- | --- | --- | --- |\n";
        for (name, Metric { kind, labels, help, modes }) in all.iter().filter(|(name, _)| section(name) == of)
        {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let modes = if modes.len() == ProxyMode::ALL.len() { "all".to_owned() } else { modes.join(", ") };
            let help = help.replace('|', "\\|");
            writeln!(page, "| `{name}` | {kind} | {} | {modes} | {help} |", labels.join(", "))
                .expect("a String takes everything");
        }
    }
    page
}

/// Section of the page.
#[derive(PartialEq)]
enum Section {
    KubeProxy,
    Portcullis,
    Services,
    Process,
}

#[test]
fn the_page_is_written_from_the_registered_metrics() {
    assert_current("docs/metrics.md", &page());
}

/// Returns the metric names in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let prefixes = ["kubeproxy_", "portcullis_", "process_", "kubernetes_"];
    let names =
        words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix) && !word.ends_with('_')));
    names.map(str::to_owned).collect()
}

#[test]
fn every_metric_name_in_the_source_is_gathered() {
    let all = all();
    let sources = [
        include_str!("../connections.rs"),
        include_str!("../kube_proxy.rs"),
        include_str!("../pod_network.rs"),
        include_str!("../policies.rs"),
        include_str!("../controllers.rs"),
        include_str!("../portcullis.rs"),
        include_str!("../process.rs"),
        include_str!("../build_info.rs"),
        include_str!("../services.rs"),
        include_str!("../traffic_events.rs"),
    ];
    let mut quoted = 0;
    for literal in sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2)) {
        if names(literal).contains(literal) {
            quoted += 1;
            assert!(all.contains_key(literal), "{literal} is not gathered");
        }
    }
    assert_eq!(quoted, all.len(), "each name occurs once in the source");
}

/// Returns the metric names in a text, without the suffixes of histograms.
fn families(text: &str, all: &BTreeMap<String, Metric>) -> BTreeSet<String> {
    let base = |name: String| {
        let mut ends = ["_bucket", "_count", "_sum"].iter();
        let base = ends
            .find_map(|end| name.strip_suffix(end).filter(|base| all.contains_key(*base)).map(str::to_owned));
        base.unwrap_or(name)
    };
    names(text).into_iter().map(base).collect()
}

#[test]
fn alerts_dashboard_and_docs_use_existing_metrics() {
    let all = all();
    for (file, text, at_least) in [
        ("alerts.yaml", include_str!("../../../../deploy/monitoring/alerts.yaml"), 9),
        ("dashboard.json", include_str!("../../../../deploy/monitoring/dashboard.json"), 15),
        ("operating.md", include_str!("../../../../docs/operating.md"), 20),
    ] {
        let named = families(text, &all);
        assert!(named.len() >= at_least, "{file} names only {named:?}");
        let unknown: Vec<&String> = named.iter().filter(|name| !all.contains_key(*name)).collect();
        assert_eq!(unknown, [""; 0], "{file} names unknown metrics");
    }
}

#[test]
fn the_silence_alert_and_health_have_the_same_limit() {
    let alerts = include_str!("../../../../deploy/monitoring/alerts.yaml");
    let limit = crate::source::SILENCE_LIMIT.as_secs();
    let expected = format!("(portcullis_source_last_heard_age_seconds) > {limit}\n");
    assert!(alerts.contains(&expected), "no alert at {limit} s");
}

#[test]
fn labels_in_the_dashboard_and_the_alerts_exist() {
    let all = all();
    let known: BTreeSet<&str> =
        all.values().flat_map(|metric| metric.labels.iter().map(String::as_str)).collect();
    let by_prometheus = ["instance", "job", "le"];
    let texts = [
        include_str!("../../../../deploy/monitoring/alerts.yaml"),
        include_str!("../../../../deploy/monitoring/dashboard.json"),
    ];
    let mut lists = 0;
    for text in texts {
        for list in text.split(" by (").skip(1) {
            let (list, _) = list.split_once(')').expect("a list of labels ends");
            lists += 1;
            for label in list.split(',').map(str::trim) {
                assert!(known.contains(label) || by_prometheus.contains(&label), "there is no label {label}");
            }
        }
    }
    assert!(lists >= 10, "only {lists}");
}
