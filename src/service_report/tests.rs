use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::pod::{Pod, PodIps};
use portcullis_cluster::{
    Event, Family, Index, IpvsScheduler, Kind, Name, NamespacedName, Object, ObjectKey,
};
use portcullis_modes::{NodeFacts, Options, ProxyMode};

use super::{
    Isolation, Reason, ReportInput, ServiceItem, ServiceQuery, ServiceReport, ServiceStatus, Severity, report,
};
use crate::source::read_manifests;

/// What node-1 of `fixtures/service-report/reasons.yaml` knows.
struct Node {
    index: Index,
    desired: Desired,
    mode: ProxyMode,
    scheduler: IpvsScheduler,
    families: Vec<Family>,
    node_port_addresses: Vec<IpAddr>,
    isolated: BTreeMap<NamespacedName, Isolation>,
    pending: BTreeSet<NamespacedName>,
    health_check_failures: BTreeMap<NamespacedName, String>,
}

impl Node {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/service-report");
        let manifests = read_manifests(&folder.join("reasons.yaml")).expect("the file can be read");
        assert!(manifests.errors.is_empty(), "{:?}", manifests.errors);
        let mut index = Index::new();
        manifests.objects.into_iter().for_each(|object| _ = index.handle(Event::Applied(object)));
        let desired = desired(&index);
        Node {
            index,
            desired,
            mode: ProxyMode::Nftables,
            scheduler: IpvsScheduler::RoundRobin,
            families: Family::BOTH.into(),
            node_port_addresses: vec![[192, 168, 10, 11].into()],
            isolated: BTreeMap::new(),
            pending: BTreeSet::new(),
            health_check_failures: BTreeMap::new(),
        }
    }

    fn report(&self, query: &ServiceQuery) -> Result<ServiceReport, super::NotFound> {
        let input = ReportInput {
            index: &self.index,
            desired: &self.desired,
            mode: self.mode,
            scheduler: self.scheduler,
            options: &Options::default(),
            facts: &NodeFacts::default(),
            families: &self.families,
            node_port_addresses: Some(&self.node_port_addresses),
            has_pods: true,
            has_all_services: true,
            has_endpoints_v1: &|_| false,
            isolated: &self.isolated,
            pending: &[&self.pending],
            health_check_failures: &self.health_check_failures,
            notes: Vec::new(),
        };
        report(&input, query)
    }

    fn items(&self, query: &ServiceQuery) -> Vec<ServiceItem> {
        self.report(query).expect("the Services exist").items
    }

    fn item(&self, name: &str) -> ServiceItem {
        let query = ServiceQuery {
            namespace: Some("shop".into()),
            name: Some(name.into()),
            endpoints: true,
            ..Default::default()
        };
        self.items(&query).pop().expect("the Service exists")
    }
}

fn desired(index: &Index) -> Desired {
    let allowed = ["192.0.2.0/24", "203.0.113.0/24"].map(|cidr| cidr.parse().expect("a block"));
    Desired::new(Name::new("node-1")).with_external_cidrs(&allowed).with_index(index)
}

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn names(items: &[ServiceItem]) -> Vec<&str> {
    items.iter().map(|item| &*item.name).collect()
}

use ServiceStatus::{Degraded, NotProxied, NotServing, Serving};
use Severity::{Error, Info, Warning};

/// Services of the fixture, with the findings, in order, and the status that they must have.
type Row = (&'static str, &'static [(Severity, Reason)], ServiceStatus);

const ROWS: &[Row] = &[
    ("answers", &[], Serving),
    ("no-slices", &[(Error, Reason::NoEndpointSlices)], NotServing),
    ("empty-slices", &[(Error, Reason::NoEndpoints)], NotServing),
    ("mistyped", &[(Error, Reason::SelectorMatchesNoPods)], NotServing),
    ("port-name", &[(Error, Reason::PortNameMismatch)], NotServing),
    ("wrong-family", &[(Error, Reason::NoEndpointsOfFamily)], Degraded),
    ("not-ready", &[(Error, Reason::NoReadyEndpoints)], NotServing),
    ("terminating", &[(Warning, Reason::OnlyTerminatingEndpoints)], Degraded),
    ("internal-local", &[(Warning, Reason::NoLocalEndpoints)], NotServing),
    ("external-local", &[(Warning, Reason::NoLocalEndpoints)], Degraded),
    ("health-checked", &[(Info, Reason::NoLocalEndpoints)], Serving),
    ("hinted", &[(Info, Reason::TopologyHints)], Serving),
    ("older", &[], Serving),
    ("shadowed", &[(Warning, Reason::Shadowed)], Degraded),
    ("same-cluster-ip", &[(Error, Reason::Shadowed)], NotServing),
    ("not-allowed", &[(Warning, Reason::AddressNotAllowed)], Degraded),
    ("closed", &[(Error, Reason::NoSourceAllowed)], Degraded),
    ("health-conflict", &[(Warning, Reason::HealthCheckNotServed)], Degraded),
    ("no-ports", &[(Error, Reason::NoPorts)], NotServing),
    ("headless", &[(Info, Reason::Headless)], NotProxied),
    ("no-cluster-ip", &[(Info, Reason::NoClusterIp)], NotProxied),
    ("external-name", &[(Info, Reason::ExternalName)], NotProxied),
    ("other-proxy", &[(Info, Reason::OtherProxy)], NotProxied),
];

fn findings(item: &ServiceItem) -> Vec<(Severity, Reason)> {
    item.findings.iter().map(|finding| (finding.severity, finding.reason)).collect()
}

#[test]
fn each_service_has_the_expected_findings_and_status() {
    let node = Node::new();
    let items = node.items(&ServiceQuery::default());
    assert_eq!(items.len(), ROWS.len(), "{:?}", names(&items));
    let mut wrong = Vec::new();
    for (name, expected, status) in ROWS {
        let item = node.item(name);
        if (&*findings(&item), item.status) != (*expected, *status) {
            wrong.push(format!("{name}: {:?} {:?}", findings(&item), item.status));
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn facts_of_the_kernel_and_of_the_node_are_findings() {
    let first = |node: &Node, of: &str| {
        let item = node.item(of);
        let first = item.findings.first().expect("a finding");
        (first.severity, first.reason, first.message.clone(), item.status)
    };
    let mut node = Node::new();
    let isolation = Isolation {
        message: "xt_recent: No such file or directory".into(),
        since: "2026-11-30T10:00:00.5Z".parse().expect("a time"),
        without_rules: Vec::new(),
    };
    node.isolated.insert(name("answers"), isolation);
    node.pending.insert(name("older"));
    node.health_check_failures.insert(name("health-checked"), "port in use".into());
    let isolated =
        "the kernel rejects shop/answers since 2026-11-30T10:00:00Z: xt_recent: No such file or directory";
    assert_eq!(first(&node, "answers"), (Error, Reason::Isolated, isolated.into(), Degraded));
    let answers = |node: &Node| -> Vec<(String, bool)> {
        node.item("answers")
            .frontends
            .into_iter()
            .map(|frontend| (frontend.family, frontend.answers))
            .collect()
    };
    assert!(answers(&node).iter().all(|(_, answers)| *answers), "the last accepted rules are kept");
    node.isolated.get_mut(&name("answers")).expect("it is isolated").without_rules = vec![Family::V4];
    assert_eq!(
        first(&node, "answers").3,
        if answers(&node).iter().any(|(family, _)| family == "IPv6") { Degraded } else { NotServing }
    );
    assert!(
        answers(&node).iter().all(|(family, answers)| *answers == (family == "IPv6")),
        "{:?}",
        answers(&node)
    );
    node.isolated.get_mut(&name("answers")).expect("it is isolated").without_rules = Family::BOTH.into();
    assert_eq!(first(&node, "answers").3, NotServing);
    assert_eq!(
        node.item("answers").findings[0].hint.as_deref(),
        Some(
            "no version of it has been accepted, so nothing serves it by IPv4 and IPv6; it is retried, and all other Services are served"
        )
    );
    assert_eq!(first(&node, "older").1, Reason::Pending);
    assert_eq!((node.item("older").status, node.item("older").is_pending()), (Serving, true));
    assert!(!node.item("answers").is_pending(), "it has a problem");
    let failed = "health check node port 32011 is not served: port in use";
    assert_eq!(
        first(&node, "health-checked"),
        (Warning, Reason::HealthCheckNotServed, failed.into(), Degraded)
    );

    node.node_port_addresses.clear();
    assert_eq!(first(&node, "closed").1, Reason::NoSourceAllowed);
    assert!(findings(&node.item("closed")).contains(&(Warning, Reason::NoNodePortAddress)));

    node.isolated.clear();
    node.families = vec![Family::V6];
    assert_eq!(findings(&node.item("answers")), [(Info, Reason::FamilyNotServed)]);
    assert_eq!(first(&node, "hinted").1, Reason::FamilyNotServed);
    assert_eq!((first(&node, "hinted").0, node.item("hinted").status), (Error, NotServing));
}

#[test]
fn unreadable_service_is_a_problem() {
    let mut node = Node::new();
    node.index.handle(Event::Unreadable(ObjectKey { kind: Kind::Service, name: name("broken") }));
    node.index.handle(Event::Unreadable(ObjectKey::unnamed(Kind::Service)));
    let report = node.report(&ServiceQuery { problems: true, ..Default::default() }).expect("no name");
    let broken = report.items.iter().find(|item| item.name == "broken").expect("it is listed");
    assert_eq!((findings(broken), broken.status), (vec![(Error, Reason::Unreadable)], NotServing));
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
}

#[test]
fn problems_are_errors_and_warnings() {
    let node = Node::new();
    let items = node.items(&ServiceQuery { problems: true, ..Default::default() });
    let is_problem = |row: &&Row| row.1.iter().any(|(severity, _)| *severity >= Warning);
    let mut expected: Vec<&str> = ROWS.iter().filter(is_problem).map(|row| row.0).collect();
    expected.sort_unstable();
    assert_eq!(names(&items), expected);
}

#[test]
fn pages_have_each_service_once() {
    let node = Node::new();
    let all = node.items(&ServiceQuery::default());
    let mut query = ServiceQuery { limit: Some(5), ..Default::default() };
    let mut paged = Vec::new();
    loop {
        let page = node.report(&query).expect("no name");
        assert_eq!((page.total, page.offset), (all.len(), paged.len()));
        assert!(page.items.len() <= 5 && !page.items.is_empty());
        paged.extend(page.items);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert_eq!(paged, all);
    let at = |offset| node.items(&ServiceQuery { offset, limit: Some(3), ..Default::default() });
    assert_eq!(at(4), all[4..7]);
    assert_eq!(at(all.len() - 1), all[all.len() - 1..]);
    assert_eq!(at(usize::MAX), []);
}

#[test]
fn search_finds_names_addresses_and_ports() {
    let node = Node::new();
    for (text, expected) in [
        ("anSwer", &["answers"][..]),
        ("shop/older", &["older"]),
        ("192.0.2.13", &["older", "shadowed"]),
        ("fd00:10:96::6", &["wrong-family"]),
        ("30010", &["external-local"]),
        ("nothing", &[]),
    ] {
        let query = ServiceQuery { search: Some(text.into()), ..Default::default() };
        assert_eq!(names(&node.items(&query)), expected, "{text}");
    }
}

#[test]
fn shares_are_those_of_new_connections() {
    let mut node = Node::new();
    let shares = |item: &ServiceItem| -> Vec<_> {
        let endpoints = item.endpoints.as_deref().expect("requested");
        endpoints
            .iter()
            .map(|endpoint| (endpoint.cluster_share_percent, endpoint.local_share_percent))
            .collect()
    };
    let both = [(Some(50.0), None), (Some(50.0), None), (Some(100.0), None)];
    assert_eq!(shares(&node.item("answers")), both);
    assert_eq!(shares(&node.item("hinted")), [(Some(100.0), None), (Some(0.0), None)]);
    assert_eq!(shares(&node.item("health-checked")), [(Some(100.0), Some(0.0))]);
    node.mode = ProxyMode::Ipvs;
    assert_eq!(shares(&node.item("answers")), both);
    node.scheduler = IpvsScheduler::LeastConnections;
    assert_eq!(shares(&node.item("answers")), [(None, None); 3]);
    let balancing = node.item("answers").balancing.expect("it is proxied");
    assert_eq!((&*balancing.method, balancing.is_even), ("lc", false));
}

/// In IPVS mode, a node port with policy Local uses all endpoints if none is on the node. Replies to clients outside of the
/// cluster are then lost.
#[test]
fn fallback_of_ipvs_mode_does_not_answer_clients_outside_of_the_cluster() {
    let mut node = Node::new();
    node.mode = ProxyMode::Ipvs;
    let item = node.item("external-local");
    assert_eq!(findings(&item), [(Warning, Reason::NoLocalEndpoints)]);
    let answers: Vec<bool> = item.frontends.iter().map(|frontend| frontend.answers).collect();
    assert_eq!((item.status, &*answers), (Degraded, &[true, false][..]));
}

#[test]
fn missing_names_are_errors_with_suggestions() {
    let node = Node::new();
    let query = |namespace: &str, name: Option<&str>| ServiceQuery {
        namespace: Some(namespace.into()),
        name: name.map(str::to_owned),
        ..Default::default()
    };
    let error = |namespace, name| node.report(&query(namespace, name)).expect_err("no such name").0;
    assert_eq!(error("shop", Some("oldre")), "there is no Service shop/oldre; did you mean shop/older?");
    assert_eq!(
        error("shpo", None),
        "there is no Service in namespace shpo; namespaces with Services are empty, shop"
    );
    assert_eq!(node.report(&query("empty", None)).map(|report| report.total), Ok(0));

    let index = Index::new();
    let empty = Node { desired: desired(&index), index, ..Node::new() };
    let error = empty.report(&query("shop", None)).expect_err("there is no namespace").0;
    assert!(error.starts_with("there is no Service in namespace shop; nor in any other"), "{error}");
}

/// A tenant may create many Services whose selectors match no pod. Similar labels are looked for on behalf of some of them only.
#[test]
fn searches_through_pods_are_bounded() {
    let mut node = Node::new();
    let web = node.index.pod(&name("web-1")).cloned().expect("a pod of the fixture");
    for i in 0..10_000 {
        let pod = Pod { key: name(&format!("pod-{i}")), ips: PodIps::default(), ..web.clone() };
        node.index.handle(Event::Applied(Object::Pod(pod)));
    }
    let mistyped = node.index.service(&name("mistyped")).cloned().expect("a Service of the fixture");
    for i in 0..40 {
        let ip = format!("10.96.7.{i}").parse().expect("an address");
        let service = portcullis_cluster::service::Service {
            key: name(&format!("mistyped-{i}")),
            cluster_ips: Box::new([ip]),
            ..mistyped.clone()
        };
        node.index.handle(Event::Applied(Object::Service(service)));
    }
    node.desired = desired(&node.index);
    let query = ServiceQuery { search: Some("mistyped".into()), ..Default::default() };
    let items = node.items(&query);
    let searched = items.iter().filter(|item| item.reasons == [Reason::SelectorMatchesNoPods]).count();
    let others = items.iter().filter(|item| item.reasons == [Reason::NoEndpointSlices]).count();
    assert_eq!((searched, others), (9, 32));
}
