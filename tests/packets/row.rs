//! Rows: source, target and expected outcome.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_lab::{
    self as lab, ClusterPlan, Families, Family, FrontendKind, IpvsLosses, ProbeTally, Prober, Protocol,
    Vantage,
};

use crate::expectation::{Answer, Expectation, Source};
use crate::mode::Mode;
use crate::testbed::Testbed;

/// Timeout for expected responses, for a busy machine.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Returns the timeout for expected timeouts. A rejection over IPv6 takes a second: the first ICMP error arrives while
/// the kernel is still in `connect` and is ignored; the next one follows the retransmitted SYN.
fn silent_timeout(family: Family) -> Duration {
    Duration::from_millis(if family == Family::V6 { 1500 } else { 500 })
}

/// Number of rows probed concurrently; many of them wait.
const WIDTH: usize = 6;

/// Default addresses of the outside host.
const OUTSIDE: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];

/// One row of a table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) from: Origin,
    pub(crate) to: Target,
    expect: Expectation,
    expect_of_ipvs: Option<Expectation>,
    expect_of_nftables: Option<Expectation>,
}

pub(crate) fn row(name: &'static str, from: Origin, to: Target, expect: Expectation) -> Row {
    Row { name, from, to, expect, expect_of_ipvs: None, expect_of_nftables: None }
}

impl Row {
    /// Sets the expectation for IPVS mode, where kube-proxy's differs from its other modes.
    pub(crate) fn in_ipvs(self, expect: Expectation) -> Self {
        Self { expect_of_ipvs: Some(expect), ..self }
    }

    /// Sets the expectation for nftables mode, where kube-proxy's differs: node ports are served at primary addresses.
    pub(crate) fn in_nftables(self, expect: Expectation) -> Self {
        Self { expect_of_nftables: Some(expect), ..self }
    }

    fn expect(&self, mode: Mode) -> &Expectation {
        let of_mode = match mode {
            Mode::Iptables(_) => None,
            Mode::Ipvs => self.expect_of_ipvs.as_ref(),
            Mode::Nftables => self.expect_of_nftables.as_ref(),
        };
        of_mode.unwrap_or(&self.expect)
    }
}

/// Source of probes.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) vantage: Vantage,
    source: Vec<IpAddr>,
}

fn origin(vantage: Vantage) -> Origin {
    Origin { vantage, source: Vec::new() }
}

/// Returns a pod of the fixture.
pub(crate) fn pod(name: &str) -> Origin {
    origin(Vantage::pod(name))
}

/// Returns the client pod on node-1 or node-2.
pub(crate) fn client(node: usize) -> Origin {
    origin(Vantage::client_on(&node_name(node)))
}

/// Returns a node.
pub(crate) fn node(node: usize) -> Origin {
    origin(Vantage::node(node_name(node)))
}

/// Returns the outside host.
pub(crate) fn outside() -> Origin {
    origin(Vantage::Outside)
}

/// Returns the outside host with other source addresses.
pub(crate) fn outside_as(addresses: &[&str]) -> Origin {
    Origin { vantage: Vantage::Outside, source: addresses.iter().map(|a| a.parse().unwrap()).collect() }
}

pub(crate) fn node_name(node: usize) -> String {
    format!("node-{node}")
}

/// Target of probes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    what: What,
    protocol: Protocol,
    family: Option<Family>,
}

#[derive(Debug, Clone)]
enum What {
    Frontend { service: &'static str, kind: FrontendKind, port: u16 },
    NodePortAt { addresses: Vec<IpAddr>, service: &'static str, port: u16 },
    Addresses(Vec<SocketAddr>),
}

fn frontend(kind: FrontendKind, service: &'static str, port: u16) -> Target {
    Target { what: What::Frontend { service, kind, port }, protocol: Protocol::Tcp, family: None }
}

pub(crate) fn cluster_ip(service: &'static str, port: u16) -> Target {
    frontend(FrontendKind::ClusterIp, service, port)
}

/// Returns the node port of the Service's `port`, at the node's addresses.
pub(crate) fn node_port(node: usize, service: &'static str, port: u16) -> Target {
    frontend(FrontendKind::NodePort(node_name(node)), service, port)
}

/// Returns every load balancer address of the Service that nodes serve.
pub(crate) fn load_balancer(service: &'static str, port: u16) -> Target {
    frontend(FrontendKind::LoadBalancer, service, port)
}

/// Returns the Service's `externalIPs`.
pub(crate) fn external_ip(service: &'static str, port: u16) -> Target {
    frontend(FrontendKind::ExternalIp, service, port)
}

/// Returns the node port of the Service's `port`, at these addresses.
pub(crate) fn node_port_at(addresses: &[&str], service: &'static str, port: u16) -> Target {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Target { what: What::NodePortAt { addresses, service, port }, protocol: Protocol::Tcp, family: None }
}

/// Returns addresses and ports, independent of Services.
pub(crate) fn at(addresses: &[&str]) -> Target {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Target { what: What::Addresses(addresses), protocol: Protocol::Tcp, family: None }
}

impl Target {
    pub(crate) fn udp(self) -> Self {
        Self { protocol: Protocol::Udp, ..self }
    }

    pub(crate) fn sctp(self) -> Self {
        Self { protocol: Protocol::Sctp, ..self }
    }

    /// Selects the IPv4 addresses. Without a selection, each family of the cluster must have one.
    pub(crate) fn v4(self) -> Self {
        Self { family: Some(Family::V4), ..self }
    }

    /// Selects the IPv6 addresses.
    pub(crate) fn v6(self) -> Self {
        Self { family: Some(Family::V6), ..self }
    }

    /// Returns the addresses to probe.
    pub(crate) fn addresses(&self, plan: &ClusterPlan, families: Families) -> Vec<SocketAddr> {
        let wanted = self.family.map_or(families.list().to_vec(), |family| vec![family]);
        let mut all = match &self.what {
            What::Addresses(addresses) => addresses.clone(),
            What::Frontend { service, kind, port } => self.frontends(plan, service, kind, *port),
            What::NodePortAt { addresses, service, port } => {
                let kind = FrontendKind::NodePort(node_name(1));
                let number = self.frontends(plan, service, &kind, *port)[0].port();
                addresses.iter().map(|address| SocketAddr::new(*address, number)).collect()
            }
        };
        let has = |family: &Family| all.iter().any(|address| Family::from_ip(address.ip()) == *family);
        let given = matches!(self.what, What::Addresses(_) | What::NodePortAt { .. });
        assert!(
            wanted.iter().all(has) || (given && self.family.is_none()),
            "{self:?} has no {wanted:?} in {all:?}"
        );
        all.retain(|address| wanted.contains(&Family::from_ip(address.ip())));
        all
    }

    fn frontends(
        &self,
        plan: &ClusterPlan,
        service: &str,
        kind: &FrontendKind,
        port: u16,
    ) -> Vec<SocketAddr> {
        let object = plan.service(service).unwrap_or_else(|| panic!("no Service {service}"));
        let protocol = self.protocol.to_string();
        let frontends = plan.frontends(object).into_iter();
        let fitting = frontends.filter(|f| f.kind == *kind && f.port == port && f.protocol == protocol);
        let found: Vec<SocketAddr> = fitting.map(|frontend| frontend.address).collect();
        assert!(!found.is_empty(), "Service {service} has no {kind} with port {port}/{protocol}");
        found
    }
}

impl Testbed {
    /// Returns the first IPv4 address of a target.
    pub(crate) fn address(&self, to: Target) -> SocketAddr {
        to.v4().addresses(self.lab.plan(), self.families)[0]
    }

    /// Returns a prober for a source.
    pub(crate) fn from(&self, origin: Origin) -> Prober {
        self.lab.prober(origin.vantage).unwrap().timeout(ANSWER)
    }

    /// Probes all rows; the failure message lists every row with an unexpected outcome.
    pub(crate) fn check(&self, rows: &[Row]) {
        let probes: Vec<Probe> = rows.iter().flat_map(|row| self.probes(row)).collect();
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut outcomes = Vec::new();
            while let Some(probe) = probes.get(next.fetch_add(1, Ordering::Relaxed)) {
                outcomes.push(probe.run());
            }
            outcomes
        };
        let outcomes: Vec<(Option<String>, IpvsLosses)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..WIDTH).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let (violations, losses): (Vec<Option<String>>, Vec<IpvsLosses>) = outcomes.into_iter().unzip();
        let violations: Vec<String> = violations.into_iter().flatten().collect();
        let count = violations.len();
        assert!(count == 0, "{count} of {} probes unexpected:\n{}", probes.len(), violations.join("\n"));
        self.check_total_of_ipvs_losses(losses);
    }

    /// Rows tolerate single losses in IPVS mode; the total of all rows of this test bed has a bound of its own.
    fn check_total_of_ipvs_losses(&self, losses: Vec<IpvsLosses>) {
        let mut total = self.ipvs_losses.lock().unwrap();
        *total = losses.into_iter().chain([*total]).sum();
        assert!(total.is_tolerated(), "{total:?}, expected at most {} lost", total.tolerated());
    }

    fn probes<'a>(&'a self, row: &'a Row) -> Vec<Probe<'a>> {
        let addresses = row.to.addresses(self.lab.plan(), self.families);
        let prober = self.lab.prober(row.from.vantage.clone()).unwrap();
        let expect = row.expect(self.mode);
        let is_silent = matches!(expect.answer, Answer::Lost);
        let masquerading = match expect.source {
            Source::Masqueraded(node) => self.node_addresses(&node_name(node)),
            Source::Any | Source::Kept => Vec::new(),
        };
        let client = self.client_addresses(&row.from);
        let of = |to: SocketAddr| {
            let same_family = row.from.source.iter().find(|source| source.is_ipv4() == to.is_ipv4());
            let timeout = if is_silent { silent_timeout(Family::from_ip(to.ip())) } else { ANSWER };
            let prober = prober.clone().timeout(timeout);
            let prober = same_family.map_or(prober.clone(), |source| prober.source(*source));
            let prober = if self.mode == Mode::Ipvs { prober.unique_source_ports() } else { prober };
            let probes = expect.probes(self.mode);
            Probe {
                row,
                plan: self.lab.plan(),
                expect,
                mode: self.mode,
                probes,
                to,
                prober,
                client: client.clone(),
                masquerading: masquerading.clone(),
            }
        };
        addresses.into_iter().map(of).collect()
    }

    fn client_addresses(&self, from: &Origin) -> Vec<IpAddr> {
        match &from.vantage {
            Vantage::Pod(name) => self.lab.plan().pod(name).unwrap().addresses.clone(),
            Vantage::Node(name) => self.node_addresses(name),
            Vantage::Outside if from.source.is_empty() => OUTSIDE.map(|a| a.parse().unwrap()).to_vec(),
            Vantage::Outside => from.source.clone(),
        }
    }

    fn node_addresses(&self, node: &str) -> Vec<IpAddr> {
        let node = self.lab.plan().node(node).unwrap();
        node.addresses.iter().copied().chain(node.bridge_addresses()).collect()
    }
}

/// Probes of one address of a row.
struct Probe<'a> {
    row: &'a Row,
    plan: &'a ClusterPlan,
    expect: &'a Expectation,
    mode: Mode,
    probes: usize,
    to: SocketAddr,
    prober: Prober,
    client: Vec<IpAddr>,
    masquerading: Vec<IpAddr>,
}

impl Probe<'_> {
    /// Sends the probes; returns a description of an unexpected outcome, and the tolerated losses.
    fn run(&self) -> (Option<String>, IpvsLosses) {
        let seen: ProbeTally = self.prober.probe_many(self.row.to.protocol, self.to, self.probes);
        // The output includes tolerated losses.
        let checked = lab::tolerating_ipvs_losses(self.mode.data_path(), self.plan, &seen);
        let losses = match self.expect.answer {
            Answer::Spread(_) | Answer::OneOf(_) => IpvsLosses::new(self.mode.data_path(), self.plan, &seen),
            Answer::Refused | Answer::Rejected | Answer::Lost => IpvsLosses::default(),
        };
        let violation = self.expect.violation(&checked, &self.client, &self.masquerading);
        let verdict = violation.as_deref().unwrap_or("ok");
        let line = format!(
            "{:<70} {} -> {}/{}: {verdict}; saw {:?} {:?} from {:?}",
            self.row.name,
            self.row.from.vantage,
            self.to,
            self.row.to.protocol,
            seen.by_responder,
            seen.failures,
            seen.sources
        );
        println!("{line}");
        (violation.map(|_| line), losses)
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { what: What::Addresses(vec![address]), protocol: Protocol::Tcp, family: None }
    }
}
