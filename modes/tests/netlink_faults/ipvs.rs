//! IPVS mode: virtual servers, ipsets and addresses. The rules of iptables are written by a tool, and are kept in memory here.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_machines::uml;
use portcullis_modes::iptables::{Flavour, IptablesFeatures, IptablesKernel};
use portcullis_modes::ipvs::{DUMMY_INTERFACE, IpvsOptions, IpvsProxier, NetlinkKernel};
use portcullis_modes::{Mode, NodeFacts, SyncResult};
use portcullis_netlink::ip_vs::{IpVs, VirtualServer};
use portcullis_netlink::ipset::IpSets;
use portcullis_netlink::route::Rtnetlink;
use portcullis_netlink::socket::faults::{Fault, FaultPlan};

use crate::cluster::{NODE, TestFrontend, after, before, frontends_after, kept_frontends, node, options};
use crate::fake_iptables::FakeKernel;
use crate::namespace::run;
use crate::outcomes::{Outcomes, Scenario};

struct Ipvs {
    /// The daemon starts with the change, and finds the objects of its predecessor.
    restarts: bool,
    rules: FakeKernel,
    before: Desired,
    after: Desired,
    changes: Vec<ServiceChange>,
    proxier: Option<IpvsProxier>,
}

impl Ipvs {
    fn new(restarts: bool) -> Self {
        let (after, changes) = after();
        let rules = FakeKernel::new(Flavour::Legacy);
        Ipvs { restarts, rules, before: before(), after, changes, proxier: None }
    }

    fn proxier(&self) -> IpvsProxier {
        let mut kernel = NetlinkKernel::open().unwrap().expect("ip_vs is loaded");
        kernel.ensure_link().unwrap();
        let rules: Box<dyn IptablesKernel> = Box::new(self.rules.clone());
        let facts = NodeFacts { iptables: IptablesFeatures { random_fully: true, nfacct: false }, ..node() };
        IpvsProxier::new(IpvsOptions::default(), options(), facts, kernel, [(Family::V4, rules)])
    }
}

fn succeed(results: &[SyncResult]) {
    assert!(results.iter().all(|result| result.error.is_none() && result.isolated.is_empty()), "{results:?}");
}

impl Scenario for Ipvs {
    fn prepare(&mut self, plan: &FaultPlan) {
        // The predecessor's real servers terminate gracefully, so the kernel starts empty.
        IpVs::open().unwrap().unwrap().flush().unwrap();
        succeed(&self.proxier().sync(&self.before, &[]));
        plan.count();
        let mut proxier = plan.run(|| self.proxier());
        if !self.restarts {
            succeed(&proxier.sync(&self.before, &[]));
        }
        self.proxier = Some(proxier);
    }

    fn sync(&mut self, is_first: bool) -> Vec<SyncResult> {
        let changes = if is_first && !self.restarts { self.changes.as_slice() } else { &[] };
        self.proxier.as_mut().unwrap().sync(&self.after, changes)
    }

    fn check_kept(&self, context: &str) {
        for frontend in kept_frontends() {
            let found = endpoints(&frontend);
            assert!(!found.is_empty(), "{context}: {frontend:?} is not served");
            assert!(found.is_subset(&frontend.endpoints), "{context}: {frontend:?} routes to {found:?}");
            check_address(&frontend, context);
        }
    }

    fn check_complete(&self, context: &str) {
        for frontend in frontends_after() {
            assert_eq!(endpoints(&frontend), frontend.endpoints, "{context}: {frontend:?}");
            check_address(&frontend, context);
        }
        let servers = IpVs::open().unwrap().unwrap().virtual_servers().unwrap();
        assert_eq!(servers.len(), frontends_after().len(), "{context}: {servers:?}");
        let mut entries = BTreeSet::new();
        let listed = IpSets::open_or_load().unwrap().entries("KUBE-CLUSTER-IP", |entry| {
            entries.insert(entry.to_string());
            Ok(())
        });
        assert!(listed.unwrap());
        let expected = ["10.96.0.1,tcp:80", "10.96.0.2,udp:53", "10.96.0.3,tcp:443", "10.96.0.5,tcp:80"];
        assert_eq!(entries, expected.map(str::to_owned).into(), "{context}");
    }
}

/// Returns the real servers of a frontend that get new connections.
fn endpoints(frontend: &TestFrontend) -> BTreeSet<SocketAddr> {
    let server =
        VirtualServer { protocol: frontend.protocol, address: frontend.address, port: frontend.port };
    let states = IpVs::open().unwrap().unwrap().real_servers(&server).unwrap();
    states
        .into_iter()
        .filter(|state| state.server.weight > 0)
        .map(|state| state.server.socket_address())
        .collect()
}

/// Checks that the node accepts packets to the address.
fn check_address(frontend: &TestFrontend, context: &str) {
    let mut interfaces = Rtnetlink::open().unwrap();
    let link = interfaces.link_index(DUMMY_INTERFACE).unwrap().expect("the interface was created");
    let addresses = interfaces.link_addresses(link).unwrap();
    let is_there = addresses.iter().any(|address| address.addr() == frontend.address);
    assert!(is_there || frontend.address.to_string() == NODE, "{context}: {frontend:?}: {addresses:?}");
}

/// Faults that every scenario must meet.
const MUST_OCCUR: &[Fault] = &[
    Fault::SendFails(libc::ENOBUFS),
    Fault::Rejection(libc::EBUSY),
    Fault::Rejection(libc::EPERM),
    Fault::LostResponse,
    Fault::Overrun,
    Fault::ShortRead,
    Fault::WrongSequence,
];

#[test]
fn change_is_completed_after_any_fault_in_ipvs_mode() {
    uml::inside(|| {
        run("ip link set lo up");
        Outcomes::observe("ipvs, change", &mut Ipvs::new(false), 1).print(MUST_OCCUR);
    });
}

#[test]
fn restart_is_completed_after_any_fault_in_ipvs_mode() {
    uml::inside(|| {
        run("ip link set lo up");
        Outcomes::observe("ipvs, restart", &mut Ipvs::new(true), 7).print(MUST_OCCUR);
    });
}
