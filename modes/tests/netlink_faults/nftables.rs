//! nftables mode: a change of the running daemon, and a restart after which everything is compared.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_modes::nftables::{NftablesProxier, render};
use portcullis_modes::{Mode, SyncResult};
use portcullis_netlink::nf_tables::{self, Fate, Packet, Table, TableFamily, TracedHost};
use portcullis_netlink::socket::faults::{Fault, FaultPlan};

use crate::cluster::{NODE, TestFrontend, after, before, frontends_after, kept_frontends, node, options};
use crate::namespace::inside;
use crate::outcomes::{Outcomes, Scenario};

const TABLE: &str = "portcullis";

struct Nftables {
    /// The daemon starts with the change, and finds the rules of its predecessor.
    restarts: bool,
    before: Desired,
    after: Desired,
    changes: Vec<ServiceChange>,
    proxier: Option<NftablesProxier>,
}

impl Nftables {
    fn new(restarts: bool) -> Self {
        let (after, changes) = after();
        Nftables { restarts, before: before(), after, changes, proxier: None }
    }

    fn read() -> Table {
        let mut socket = nf_tables::open().unwrap().unwrap();
        let (table, unknown) =
            nf_tables::read(&mut socket, TableFamily::Ip, TABLE).unwrap().expect("a table");
        assert_eq!(unknown, Vec::<String>::new());
        table
    }
}

fn proxier() -> NftablesProxier {
    let socket = nf_tables::open().unwrap().unwrap();
    NftablesProxier::new(options(), node(), &[Family::V4], socket)
}

fn succeed(results: &[SyncResult]) {
    assert!(results.iter().all(|result| result.error.is_none()), "{results:?}");
}

impl Scenario for Nftables {
    fn prepare(&mut self, plan: &FaultPlan) {
        // The tables of the last run are restored to the state before.
        succeed(&proxier().sync(&self.before, &[]));
        plan.count();
        let mut proxier = plan.run(proxier);
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
        let table = Self::read();
        for frontend in kept_frontends() {
            let found =
                reached(&table, &frontend).unwrap_or_else(|| panic!("{context}: {frontend:?} is not served"));
            assert!(found.is_subset(&frontend.endpoints), "{context}: {frontend:?} routes to {found:?}");
        }
    }

    fn check_complete(&self, context: &str) {
        let table = Self::read();
        for frontend in frontends_after() {
            assert_eq!(
                reached(&table, &frontend),
                Some(frontend.endpoints.clone()),
                "{context}: {frontend:?}"
            );
        }
        if self.restarts {
            let rendered = render(&self.after, Family::V4, &options(), &node());
            assert!(table.to_string() == rendered.to_string(), "{context}: {table}, expected {rendered}");
        }
    }
}

/// Returns the endpoints that a packet to the frontend may reach; `None` if it may be lost.
fn reached(table: &Table, frontend: &TestFrontend) -> Option<BTreeSet<SocketAddr>> {
    let is_local = |address: IpAddr| address.to_string() == NODE;
    let host = TracedHost { tables: &[table], is_local: &is_local };
    let client = "10.244.0.77".parse().unwrap();
    let packet = Packet::new(client, frontend.address, frontend.protocol, frontend.port);
    let endpoint = |packet: &Packet| SocketAddr::new(packet.destination, packet.destination_port);
    let paths = host.paths(packet);
    paths.iter().map(|(path, _)| (path.fate == Fate::Accepted).then(|| endpoint(&path.packet))).collect()
}

/// Faults that every scenario must meet.
const MUST_OCCUR: &[Fault] = &[
    Fault::SendFails(libc::EPERM),
    Fault::Rejection(libc::EBUSY),
    Fault::LostResponse,
    Fault::Overrun,
    Fault::ShortRead,
    Fault::SpoofedAcknowledgement,
    Fault::WrongSequence,
];

#[test]
fn change_is_completed_after_any_fault_in_nftables_mode() {
    inside(|| Outcomes::observe("nftables, change", &mut Nftables::new(false), 1).print(MUST_OCCUR));
}

#[test]
fn restart_is_completed_after_any_fault_in_nftables_mode() {
    inside(|| {
        let outcomes = Outcomes::observe("nftables, restart", &mut Nftables::new(true), 5);
        outcomes.print(MUST_OCCUR);
    });
}
