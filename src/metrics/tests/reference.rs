//! `docs/metrics.md`, written from the metrics that are registered (`make bless`), and what deploy/ asks of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use portcullis_policy::table::{DropCounter, DropLabels};
use prometheus::proto::MetricType;

use super::*;
use crate::blessed::assert_written;

const HEAD: &str = "\
# Metrics

Served at `/metrics` on the metrics address, 127.0.0.1:10249 unless told otherwise, in Prometheus' text format. This page
is written from what the program registers. Names, types, labels and buckets of `kubeproxy_*` and `process_*` are those of
kube-proxy v1.36, so that dashboards and alerts go on; what it has beside them is in [differences.md](differences.md#metrics).
`portcullis_*` are ours: what to do about each is in [operating.md](operating.md#metrics). Alert rules and a dashboard for
Grafana are in [deploy/monitoring](../deploy/monitoring).

A metric with labels is absent until there is something to say; those of NetworkPolicy are 0 or absent without
`--network-policy`.
";

const SERVICES: &str = "\
Served at `/metrics/services`, apart from the others: up to five series for each port of each Service. Nothing is counted or
kept for it. Who asks has the kernel's own counters read: of IPVS's virtual servers, which know every packet, in one dump; of
the rules of iptables that lead to a Service's chains, by which a connection's first packet goes, with two runs of the tool
for each family, which for 10,000 Services takes about as long as a sync. nftables mode has no counters, as each would cost
every connection, and answers 404. Ask seldom in large clusters: rules are not written while they are read.

A sum starts with what the kernel had counted when it was first asked for, and grows for as long as the Service's port is
there, whatever becomes of its addresses and rules. What came between the last look and a change of the Service itself, by
which its rules or virtual servers are made anew, is missing; endpoints may change freely.

";

/// A metric, as somebody sees it who scrapes it.
struct Metric {
    kind: &'static str,
    labels: BTreeSet<String>,
    help: String,
    modes: Vec<&'static str>,
}

/// All metrics in all modes, each with something to say.
fn all() -> BTreeMap<String, Metric> {
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    for mode in ProxyMode::ALL {
        let metrics = Metrics::new(mode);
        report_everything(&metrics);
        report_policies(&metrics);
        let served = services::registry(&[services::example()]);
        let families = metrics.0.registry.gather().into_iter();
        for family in families.chain(served.gather().into_iter().filter(|f| is_counted(f.name(), mode))) {
            let pairs = family.get_metric().iter().flat_map(|metric| metric.get_label());
            let labels = pairs.map(|pair| pair.name().to_owned()).collect();
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                other => panic!("{}: {other:?} is not for this page", family.name()),
            };
            let new = || Metric { kind, labels, help: family.help().to_owned(), modes: Vec::new() };
            all.entry(family.name().to_owned()).or_insert_with(new).modes.push(mode.name());
        }
    }
    all
}

/// Whether a mode counts what Services serve, by the metric's name.
fn is_counted(name: &str, mode: ProxyMode) -> bool {
    match mode {
        ProxyMode::Ipvs => true,
        ProxyMode::Iptables => name == "portcullis_service_connections_total",
        ProxyMode::Nftables => false,
    }
}

fn report_policies(metrics: &Metrics) {
    metrics.policies_synced(true, Duration::from_secs(1), UNIX_EPOCH);
    metrics.set_policy_pods(2, 1);
    let label = DropLabels { direction: "ingress", policy: "shop/web".to_owned() };
    metrics
        .read_policy_drops(false, move || vec![DropCounter { label: label.clone(), packets: 1, bytes: 60 }]);
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let all = all();
    let served = services::registry(&[services::example()]).gather();
    let section = |name: &str| match () {
        () if served.iter().any(|family| family.name() == name) => Section::Services,
        () if name.starts_with("portcullis_") => Section::Portcullis,
        () if name.starts_with("process_") => Section::Process,
        () => Section::KubeProxy,
    };
    for (title, of, about) in [
        ("kube-proxy's", Section::KubeProxy, ""),
        ("Portcullis'", Section::Portcullis, ""),
        ("What Services serve", Section::Services, SERVICES),
        ("The process", Section::Process, ""),
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

/// Where a metric stands on the page.
#[derive(PartialEq)]
enum Section {
    KubeProxy,
    Portcullis,
    Services,
    Process,
}

#[test]
fn the_page_is_written_from_what_is_registered() {
    assert_written("docs/metrics.md", &page());
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let prefixes = ["kubeproxy_", "portcullis_", "process_", "kubernetes_"];
    let names =
        words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix) && !word.ends_with('_')));
    names.map(str::to_owned).collect()
}

#[test]
fn no_metric_that_the_source_names_is_missing() {
    let all = all();
    let sources = [
        include_str!("../kube_proxy.rs"),
        include_str!("../policies.rs"),
        include_str!("../portcullis.rs"),
        include_str!("../process.rs"),
        include_str!("../build_info.rs"),
        include_str!("../services.rs"),
    ];
    let mut quoted = 0;
    for literal in sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2)) {
        if names(literal).contains(literal) {
            quoted += 1;
            assert!(all.contains_key(literal), "{literal} is registered and not gathered");
        }
    }
    assert_eq!(quoted, all.len(), "each name stands once in the source");
}

/// The names in a text without what histograms append.
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
fn what_is_watched_for_is_measured() {
    let all = all();
    for (file, text, at_least) in [
        ("alerts.yaml", include_str!("../../../deploy/monitoring/alerts.yaml"), 9),
        ("dashboard.json", include_str!("../../../deploy/monitoring/dashboard.json"), 15),
        ("operating.md", include_str!("../../../docs/operating.md"), 20),
    ] {
        let named = families(text, &all);
        assert!(named.len() >= at_least, "{file} names only {named:?}");
        let unknown: Vec<&String> = named.iter().filter(|name| !all.contains_key(*name)).collect();
        assert_eq!(unknown, [""; 0], "{file} names metrics that there are not");
    }
}

#[test]
fn the_alert_for_silence_and_health_have_one_limit() {
    let alerts = include_str!("../../../deploy/monitoring/alerts.yaml");
    let limit = crate::source::SILENCE_LIMIT.as_secs();
    let expected = format!("(portcullis_source_last_heard_age_seconds) > {limit}\n");
    assert!(alerts.contains(&expected), "no alert at {limit} s");
}

#[test]
fn labels_in_the_dashboard_and_the_alerts_are_labels_of_the_metrics() {
    let all = all();
    let known: BTreeSet<&str> =
        all.values().flat_map(|metric| metric.labels.iter().map(String::as_str)).collect();
    let by_prometheus = ["instance", "job", "le"];
    let texts = [
        include_str!("../../../deploy/monitoring/alerts.yaml"),
        include_str!("../../../deploy/monitoring/dashboard.json"),
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
