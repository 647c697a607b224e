//! A node for tests: the proxier, its kernel, the cluster, and a clock.

use std::time::{Duration, Instant};

use portcullis_cluster::desired::ServiceChange;
use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::iptables::{Flavour, IptablesFeatures, IptablesKernel};
use portcullis_modes::ipvs::{IpvsObjects, IpvsOptions, IpvsProxier, Owners};
use portcullis_modes::{Mode, SyncResult};
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::ip_vs::VirtualServer;

use crate::cluster::{Cluster, TestService};
use crate::fake_iptables::FakeKernel;
use crate::kernel::{Call, FakeIpvs};
use crate::tool::Tool;

/// The maximum number of syncs until success.
const MAX_SYNCS: usize = 6;

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

/// Returns node facts with two addresses of each family, and loopback and link-local ones.
pub fn host() -> NodeFacts {
    let addresses = ["127.0.0.1", "192.0.2.1", "192.0.2.2", "::1", "2001:db8::1", "2001:db8::2", "fe80::1"];
    let addresses: Vec<_> = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
    let node_ips = [addresses[1], addresses[4]];
    NodeFacts {
        addresses: addresses.into(),
        node_ips: node_ips.into(),
        iptables: IptablesFeatures { random_fully: true, nfacct: false },
        ..NodeFacts::default()
    }
}

impl Node {
    /// Returns a node before its first sync.
    pub fn new() -> Self {
        Node::with_tool(Flavour::Nft)
    }

    /// Returns a node whose iptables tool has this flavour, before its first sync.
    pub fn with_tool(flavour: Flavour) -> Self {
        let kernel = FakeIpvs::new();
        let rules: Vec<_> =
            Family::BOTH.into_iter().map(|family| (family, FakeKernel::new(flavour))).collect();
        let exclude = ["10.99.0.0/16", "fd00:99::/64"].map(|net| net.parse().expect("a block"));
        let ipvs = IpvsOptions { exclude_cidrs: exclude.into(), ..IpvsOptions::default() };
        let (options, host) = (Options::default(), host());
        let proxier = proxier(&kernel, &rules, &ipvs, &options, &host);
        let now = Instant::now();
        Node { kernel, rules, cluster: Cluster::new(), ipvs, options, host, proxier, now }
    }

    /// Keeps one family only, and restarts.
    pub fn keep_family(&mut self, family: Family) {
        self.rules.retain(|(other, _)| *other == family);
        self.restart();
    }

    /// Returns a node that has programmed these Services, with an empty log.
    pub fn serving(services: &[(usize, TestService)]) -> Self {
        let mut node = Node::new();
        let changes = node.set(services.iter().map(|(n, service)| (*n, Some(service))));
        node.sync_without_rejections(&changes);
        node.clear_log();
        node
    }

    pub fn set<'a>(
        &mut self,
        services: impl IntoIterator<Item = (usize, Option<&'a TestService>)>,
    ) -> Vec<ServiceChange> {
        services.into_iter().flat_map(|(n, service)| self.cluster.set(n, service)).collect()
    }

    pub fn sync(&mut self, changes: &[ServiceChange]) -> Vec<SyncResult> {
        self.proxier.sync_at(self.now, &self.cluster.desired, changes)
    }

    /// Syncs until a sync succeeds, as the daemon does.
    pub fn sync_until_successful(&mut self, changes: &[ServiceChange]) -> Vec<SyncResult> {
        let mut reports = self.sync(changes);
        for _ in 0..MAX_SYNCS {
            if reports.iter().all(|report| report.error.is_none()) {
                return reports;
            }
            reports = self.sync(&[]);
        }
        panic!("every sync failed: {reports:#?}");
    }

    /// Syncs until a sync succeeds. Fails if a Service is isolated.
    pub fn sync_without_rejections(&mut self, changes: &[ServiceChange]) -> Vec<SyncResult> {
        let reports = self.sync_until_successful(changes);
        assert_no_errors(&reports);
        reports
    }

    /// Changes one Service, and syncs.
    pub fn change(&mut self, n: usize, service: Option<&TestService>) -> Vec<SyncResult> {
        let changes = self.set([(n, service)]);
        self.sync_without_rejections(&changes)
    }

    /// Restarts the daemon on the same kernel.
    pub fn restart(&mut self) {
        self.kernel.wait_for_audit();
        self.proxier = proxier(&self.kernel, &self.rules, &self.ipvs, &self.options, &self.host);
        self.now = self.now.max(Instant::now());
    }

    pub fn reconfigure(&mut self, options: Options, host: NodeFacts) {
        (self.options, self.host) = (options.clone(), host.clone());
        self.proxier.reconfigure(options, host);
    }

    /// Advances the clock, and syncs whenever it is due.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.proxier.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.sync_until_successful(&[]);
        }
        self.now = end;
    }

    /// Runs audits until no drift is left. Returns the number of restored objects.
    pub fn run_audits(&mut self) -> usize {
        let mut restored_total = 0;
        for _ in 0..MAX_SYNCS {
            // The next audit waits after a long one.
            self.now += Duration::from_secs(30);
            self.proxier.check_drift_at(self.now);
            restored_total += restored(&self.sync_without_rejections(&[]));
            self.kernel.wait_for_audit();
            self.now = self.proxier.next_due().map_or(self.now, |due| due.max(self.now));
            restored_total += restored(&self.sync_without_rejections(&[]));
        }
        restored_total
    }

    pub fn clear_log(&self) {
        let mut state = self.kernel.state();
        state.log.clear();
        state.reads = 0;
    }

    /// Returns the changes of the kernel, and the number of reads.
    pub fn log_and_reads(&self) -> (Vec<Call>, usize) {
        let state = self.kernel.state();
        (state.log.clone(), state.reads)
    }

    /// Returns the objects of the kernel.
    pub fn found(&self) -> IpvsObjects {
        self.found_in(&self.families())
    }

    /// Returns the objects that the kernel must have.
    pub fn expected(&self) -> IpvsObjects {
        self.expected_in(&self.families(), &self.cluster)
    }

    /// Returns the objects of the kernel in some families.
    pub fn found_in(&self, families: &[Family]) -> IpvsObjects {
        let tools = tools(&self.kernel, &self.rules).filter(|(family, _)| families.contains(family));
        let tools: Vec<_> = tools.collect();
        let found =
            IpvsObjects::read(&mut self.kernel.view(), &tools, &self.ipvs).expect("the kernel can be read");
        comparable(found)
    }

    /// Returns the objects that the kernel must have in some families for a cluster.
    pub fn expected_in(&self, families: &[Family], cluster: &Cluster) -> IpvsObjects {
        let Node { ipvs, options, host, .. } = self;
        comparable(IpvsObjects::render(&cluster.desired, families, ipvs, options, host))
    }

    fn families(&self) -> Vec<Family> {
        self.rules.iter().map(|(family, _)| *family).collect()
    }

    /// Returns the Service that must own a virtual server.
    pub fn owner(&self, key: &VirtualServer) -> Option<NamespacedName> {
        let Node { cluster, ipvs, options, host, .. } = self;
        let state =
            IpvsObjects::render(&cluster.desired, &[Family::from_address(key.address)], ipvs, options, host);
        state.owners.servers.get(key).cloned()
    }

    /// Fails unless the kernel has the expected objects.
    #[track_caller]
    pub fn assert_in_sync(&self) {
        let (found, expected) = (self.found(), self.expected());
        assert_eq!(found.ipvsadm(), expected.ipvsadm());
        assert_eq!(found.ipset(), expected.ipset());
        assert_eq!(found.address_lines(), expected.address_lines());
        assert_eq!(found, expected);
        let state = self.kernel.state();
        let ours = state.servers.iter().filter(|(key, _)| expected.servers.contains_key(key));
        assert!(ours.flat_map(|(_, server)| server.real.values()).all(|real| real.forwarding == 0));
    }
}

pub fn restored(reports: &[SyncResult]) -> usize {
    reports.iter().map(|report| report.restored).sum()
}

#[track_caller]
pub fn assert_no_errors(reports: &[SyncResult]) {
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

/// Removes owners, which only rendered objects have, and sorts jumps: a restored jump is at the top.
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
