//! A node: the engine, its kernel, the cluster that it follows, and a clock of its own.

use std::time::{Duration, Instant};

use portcullis_cluster::desired::ServiceChange;
use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::iptables::{Flavour, IptablesKernel};
use portcullis_modes::ipvs::{IpvsObjects, IpvsOptions, IpvsProxier, Owners};
use portcullis_modes::{Mode, SyncResult};
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::ip_vs::VirtualServer;

use crate::cluster::{Cluster, Drawn};
use crate::fake_iptables::FakeKernel;
use crate::kernel::{Call, FakeIpvs};
use crate::tool::Tool;

/// How often a test tries what may take several syncs.
const TRIES: usize = 6;

pub struct Node {
    pub kernel: FakeIpvs,
    pub rules: Vec<(Family, FakeKernel)>,
    pub cluster: Cluster,
    pub ipvs: IpvsOptions,
    pub options: Options,
    pub host: NodeFacts,
    pub proxier: IpvsProxier,
    pub now: Instant,
}

/// A host with two addresses of each family, and those that nobody can serve at.
pub fn host() -> NodeFacts {
    let addresses = ["127.0.0.1", "192.0.2.1", "192.0.2.2", "::1", "2001:db8::1", "2001:db8::2", "fe80::1"];
    let addresses: Vec<_> = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
    let node_ips = [addresses[1], addresses[4]];
    NodeFacts {
        addresses: addresses.into(),
        node_ips: node_ips.into(),
        random_fully: true,
        ..NodeFacts::default()
    }
}

impl Node {
    /// Before its first sync.
    pub fn new() -> Self {
        let kernel = FakeIpvs::new();
        let rules: Vec<_> =
            Family::BOTH.into_iter().map(|family| (family, FakeKernel::new(Flavour::Nft))).collect();
        let exclude = ["10.99.0.0/16", "fd00:99::/64"].map(|net| net.parse().expect("a block"));
        let ipvs = IpvsOptions { exclude_cidrs: exclude.into(), ..IpvsOptions::default() };
        let (options, host) = (Options::default(), host());
        let proxier = proxier(&kernel, &rules, &ipvs, &options, &host);
        let now = Instant::now();
        Node { kernel, rules, cluster: Cluster::new(), ipvs, options, host, proxier, now }
    }

    /// A node that has one family.
    pub fn only(&mut self, family: Family) {
        self.rules.retain(|(other, _)| *other == family);
        self.restart();
    }

    /// A node that serves these Services, of which nothing is asked any more.
    pub fn serving(services: &[(usize, Drawn)]) -> Self {
        let mut node = Node::new();
        let changes = node.set(services.iter().map(|(n, drawn)| (*n, Some(drawn))));
        node.settle(&changes);
        node.forget_log();
        node
    }

    pub fn set<'a>(
        &mut self,
        services: impl IntoIterator<Item = (usize, Option<&'a Drawn>)>,
    ) -> Vec<ServiceChange> {
        services.into_iter().flat_map(|(n, drawn)| self.cluster.set(n, drawn)).collect()
    }

    pub fn sync(&mut self, changes: &[ServiceChange]) -> Vec<SyncResult> {
        self.proxier.sync_at(self.now, &self.cluster.desired, changes)
    }

    /// Syncs until it succeeds, as the program does.
    pub fn retry(&mut self, changes: &[ServiceChange]) -> Vec<SyncResult> {
        let mut reports = self.sync(changes);
        for _ in 0..TRIES {
            if reports.iter().all(|report| report.error.is_none()) {
                return reports;
            }
            reports = self.sync(&[]);
        }
        panic!("it fails again and again: {reports:#?}");
    }

    /// The same where every Service must be served.
    pub fn settle(&mut self, changes: &[ServiceChange]) -> Vec<SyncResult> {
        let reports = self.retry(changes);
        all_well(&reports);
        reports
    }

    /// Changes one Service, and serves it.
    pub fn change(&mut self, n: usize, service: Option<&Drawn>) -> Vec<SyncResult> {
        let changes = self.set([(n, service)]);
        self.settle(&changes)
    }

    /// The process ends, and the next begins on the same kernel.
    pub fn restart(&mut self) {
        self.kernel.wait_for_audit();
        self.proxier = proxier(&self.kernel, &self.rules, &self.ipvs, &self.options, &self.host);
        self.now = self.now.max(Instant::now());
    }

    pub fn reconfigure(&mut self, options: Options, host: NodeFacts) {
        (self.options, self.host) = (options.clone(), host.clone());
        self.proxier.reconfigure(options, host);
    }

    /// Time passes, and the engine is called when it wants to be.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.proxier.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.retry(&[]);
        }
        self.now = end;
    }

    /// Looks for drift until nothing is found any more. Says how much was repaired.
    pub fn look_after(&mut self) -> usize {
        let mut repaired = 0;
        for _ in 0..TRIES {
            // An audit rests after one that took long.
            self.now += Duration::from_secs(30);
            self.proxier.check_drift_at(self.now);
            repaired += repairs(&self.settle(&[]));
            self.kernel.wait_for_audit();
            self.now = self.proxier.next_due().map_or(self.now, |due| due.max(self.now));
            repaired += repairs(&self.settle(&[]));
        }
        repaired
    }

    pub fn forget_log(&self) {
        let mut state = self.kernel.state();
        state.log.clear();
        state.reads = 0;
    }

    /// What the kernel was asked to change, and how often it was read.
    pub fn asked(&self) -> (Vec<Call>, usize) {
        let state = self.kernel.state();
        (state.log.clone(), state.reads)
    }

    /// What the kernel holds.
    pub fn held(&self) -> IpvsObjects {
        self.held_in(&self.families())
    }

    /// What it must hold.
    pub fn wanted(&self) -> IpvsObjects {
        self.wanted_in(&self.families(), &self.cluster)
    }

    /// What the kernel holds in some families.
    pub fn held_in(&self, families: &[Family]) -> IpvsObjects {
        let tools = tools(&self.kernel, &self.rules).filter(|(family, _)| families.contains(family));
        let tools: Vec<_> = tools.collect();
        let held = IpvsObjects::read(&mut self.kernel.view(), &tools, &self.ipvs).expect("it can be read");
        comparable(held)
    }

    /// What it must hold there for a cluster.
    pub fn wanted_in(&self, families: &[Family], cluster: &Cluster) -> IpvsObjects {
        let Node { ipvs, options, host, .. } = self;
        comparable(IpvsObjects::render(&cluster.desired, families, ipvs, options, host))
    }

    fn families(&self) -> Vec<Family> {
        self.rules.iter().map(|(family, _)| *family).collect()
    }

    /// The Service that must be served at a virtual server.
    pub fn owner(&self, key: &VirtualServer) -> Option<NamespacedName> {
        let Node { cluster, ipvs, options, host, .. } = self;
        let state =
            IpvsObjects::render(&cluster.desired, &[Family::from_address(key.address)], ipvs, options, host);
        state.owners.servers.get(key).cloned()
    }

    /// Fails unless the kernel holds what it must.
    #[track_caller]
    pub fn is_right(&self) {
        let (held, wanted) = (self.held(), self.wanted());
        assert_eq!(held.ipvsadm(), wanted.ipvsadm());
        assert_eq!(held.ipset(), wanted.ipset());
        assert_eq!(held.address_lines(), wanted.address_lines());
        assert_eq!(held, wanted);
        let state = self.kernel.state();
        let ours = state.servers.iter().filter(|(key, _)| wanted.servers.contains_key(key));
        assert!(ours.flat_map(|(_, server)| server.real.values()).all(|real| real.forwarding == 0));
    }
}

pub fn repairs(reports: &[SyncResult]) -> usize {
    reports.iter().map(|report| report.restored).sum()
}

#[track_caller]
pub fn all_well(reports: &[SyncResult]) {
    for report in reports {
        assert!(report.error.is_none() && report.isolated.is_empty(), "{report:#?}");
    }
}

fn proxier(
    kernel: &FakeIpvs,
    rules: &[(Family, FakeKernel)],
    ipvs: &IpvsOptions,
    options: &Options,
    host: &NodeFacts,
) -> IpvsProxier {
    IpvsProxier::new(ipvs.clone(), options.clone(), host.clone(), kernel.view(), tools(kernel, rules))
}

fn tools<'a>(
    kernel: &'a FakeIpvs,
    rules: &'a [(Family, FakeKernel)],
) -> impl Iterator<Item = (Family, Box<dyn IptablesKernel>)> + 'a {
    rules.iter().map(|(family, rules)| {
        let tool = Tool { family: *family, rules: rules.clone(), kernel: kernel.view() };
        (*family, Box::new(tool) as Box<dyn IptablesKernel>)
    })
}

/// Without what only a renderer knows, and with jumps in any order: one that was deleted is put back on top.
fn comparable(mut state: IpvsObjects) -> IpvsObjects {
    state.owners = Owners::default();
    for rules in state.rules.values_mut() {
        for (table, chains) in &mut rules.tables {
            for (_, lines) in chains.iter_mut().filter(|(name, _)| table.built_in().contains(&name.as_str()))
            {
                lines.sort();
            }
        }
    }
    state
}
