//! The plan of a sync: the operations on the kernel, in the order of writing. Pure.
//!
//! No packet may meet half a Service, so the order is fixed: entries of sets; virtual servers with their real servers;
//! rules; addresses of the dummy interface. Removals follow in the opposite direction: entries that accept packets,
//! then virtual servers, then addresses. Sets that narrow others, such as the source ranges of load balancers, follow
//! those in [`IpSet::ALL`]: they are filled first and emptied last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use portcullis_cluster::NamespacedName;
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetEntry;

use super::ip_set::{IpSet, PerSet};
use super::kernel::ServerChange;
use super::programmed::{ChangeSet, Programmed};
use super::rule_sync::TABLES;
use super::server_diff::{FoundServers, ServerDiff};
use super::snapshot::FamilySnapshot;
use super::termination::Terminations;
use crate::iptables::Table;

/// Entries by set.
pub(super) type SetEntries = PerSet<Vec<SetEntry>>;

/// One operation on the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    AddEntries(IpSet, Vec<SetEntry>),
    DeleteEntries(IpSet, Vec<SetEntry>),
    /// Changes virtual servers that the desired state requires.
    ChangeServers(Vec<ServerChange>),
    /// Restores virtual servers that another process changed.
    RestoreServers(Vec<ServerChange>),
    /// Writes the rules of these tables, where they differ from the kernel's.
    WriteRules(&'static [Table]),
    /// Adds addresses to the dummy interface, which is created if it is missing.
    AddAddresses(Vec<IpAddr>),
    DeleteAddresses(Vec<IpAddr>),
}

/// Operations in the order of writing, and the real servers that are draining after them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) operations: Vec<Operation>,
    pub(super) draining: BTreeMap<VirtualServer, BTreeSet<SocketAddr>>,
}

impl Plan {
    /// Adds the changes of a virtual server to `changes`.
    fn add(&mut self, server: VirtualServer, diff: ServerDiff, changes: &mut Vec<ServerChange>) {
        changes.extend(diff.changes);
        self.draining.insert(server, diff.draining);
    }

    /// Adds the changes that restore virtual servers to `changes`.
    fn restore(
        &mut self,
        programmed: &Programmed,
        found: FoundServers,
        terminations: &Terminations,
        changes: &mut Vec<ServerChange>,
    ) {
        for (server, found) in found {
            let desired = programmed.server(&server);
            let draining = terminations.draining(&server);
            let diff = ServerDiff::from_found(server, draining, found.as_ref(), desired.as_ref());
            self.add(server, diff, changes);
        }
    }

    fn delete_entries(&mut self, set: IpSet, entries: Vec<SetEntry>) {
        if !entries.is_empty() {
            self.operations.push(Operation::DeleteEntries(set, entries));
        }
    }
}

/// Plans the entries to add, of which `added` (sorted) are in the kernel already. Narrowing sets come first.
pub(super) fn add_entries(needed: impl Fn(IpSet) -> Vec<SetEntry>, added: &SetEntries) -> Vec<Operation> {
    let mut operations = Vec::new();
    for set in IpSet::ALL.into_iter().rev() {
        let mut entries = needed(set);
        entries.retain(|entry| added[set].binary_search(entry).is_err());
        if !entries.is_empty() {
            operations.push(Operation::AddEntries(set, entries));
        }
    }
    operations
}

/// Plans the removal of entries that were added and are no longer needed. They are removed from `added`.
pub(super) fn delete_unneeded_entries(programmed: &Programmed, added: &mut SetEntries) -> Vec<Operation> {
    let mut plan = Plan::default();
    for set in IpSet::ALL {
        let is_unneeded = |entry: &mut SetEntry| !programmed.references().needs_entry(set, entry);
        plan.delete_entries(set, added[set].extract_if(.., is_unneeded).collect());
    }
    plan.operations
}

/// Selects the unverified virtual servers that a sync must read, and removes them from `unverified`. Those of Services that
/// are waiting for their next attempt remain, unless they changed.
pub(super) fn take_servers_to_read(
    programmed: &Programmed,
    changes: &ChangeSet,
    unverified: &mut BTreeSet<VirtualServer>,
    is_awaiting_retry: impl Fn(&NamespacedName) -> bool,
) -> Vec<VirtualServer> {
    let mut selected = Vec::new();
    for server in std::mem::take(unverified) {
        let transition = changes.servers.get(&server);
        let is_changed = transition.is_some_and(|t| t.before.is_some() || t.after.is_some());
        match programmed.owner(&server) {
            Some(owner) if !is_changed && is_awaiting_retry(owner) => drop(unverified.insert(server)),
            None if !is_changed && !programmed.may_delete(&server) => {}
            _ => selected.push(server),
        }
    }
    selected
}

/// Plans the changes that bring virtual servers from what the kernel has to what their owners need.
pub(super) fn restore(programmed: &Programmed, found: FoundServers, terminations: &Terminations) -> Plan {
    let (mut plan, mut changes) = (Plan::default(), Vec::new());
    plan.restore(programmed, found, terminations, &mut changes);
    plan.operations.push(Operation::RestoreServers(changes));
    plan
}

/// Plans the changes of Services, after the entries that they need were added. `found` are virtual servers that may
/// differ from what was written, as read from the kernel.
pub(super) fn incremental(
    programmed: &Programmed,
    changes: &ChangeSet,
    mut found: FoundServers,
    terminations: &Terminations,
) -> Plan {
    let mut plan = Plan::default();
    let (mut changed, mut removed, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    for (server, transition) in &changes.servers {
        let (before, after) = (transition.before.as_ref(), transition.after.as_ref());
        if before.is_none() && after.is_none() {
            continue;
        }
        let draining = terminations.draining(server);
        let diff = match found.remove(server) {
            Some(found) => ServerDiff::from_found(*server, draining, found.as_ref(), after),
            None => ServerDiff::from_written(*server, draining, before, after),
        };
        let list = if after.is_some() { &mut changed } else { &mut removed };
        plan.add(*server, diff, list);
    }
    plan.restore(programmed, found, terminations, &mut restored);
    let references = programmed.references();
    let (added_addresses, removed_addresses) = references.changed_addresses(&changes.references);
    let removed_entries = |set: IpSet| references.changed_entries(set, &changes.references).1;
    if !changed.is_empty() {
        plan.operations.push(Operation::ChangeServers(changed));
    }
    if !restored.is_empty() {
        plan.operations.push(Operation::RestoreServers(restored));
    }
    plan.operations.push(Operation::WriteRules(&TABLES));
    if !added_addresses.is_empty() {
        plan.operations.push(Operation::AddAddresses(added_addresses));
    }
    for set in IpSet::ALL.into_iter().filter(|set| *set != IpSet::IpvsIps) {
        plan.delete_entries(set, removed_entries(set));
    }
    if !removed.is_empty() {
        plan.operations.push(Operation::ChangeServers(removed));
    }
    if !removed_addresses.is_empty() {
        plan.operations.push(Operation::DeleteAddresses(removed_addresses));
    }
    plan.delete_entries(IpSet::IpvsIps, removed_entries(IpSet::IpvsIps));
    plan
}

/// Plans the rest of a full sync, after entries were added and the desired virtual servers were compared. `snapshot`
/// has the virtual servers that are left over. `first` are the tables to write before the addresses: rules of another
/// proxy mode serve until the addresses are on the dummy interface, so the nat table may have to wait.
pub(super) fn full(programmed: &Programmed, snapshot: &FamilySnapshot, first: &'static [Table]) -> Plan {
    let mut plan = Plan::default();
    let references = programmed.references();
    let mut added: Vec<IpAddr> =
        references.addresses().filter(|address| !snapshot.addresses.contains(*address)).copied().collect();
    added.sort_unstable();
    let is_unneeded = |address: &&IpAddr| !references.needs_address(address);
    let removed: Vec<IpAddr> = snapshot.addresses.iter().filter(is_unneeded).copied().collect();
    let unneeded_entries = |set: IpSet| -> Vec<SetEntry> {
        let is_unneeded = |entry: &&SetEntry| !references.needs_entry(set, entry);
        snapshot.entries[set].iter().filter(is_unneeded).copied().collect()
    };
    plan.operations.push(Operation::WriteRules(first));
    plan.operations.push(Operation::AddAddresses(added));
    plan.operations.push(Operation::WriteRules(&TABLES));
    for set in IpSet::ALL.into_iter().filter(|set| *set != IpSet::IpvsIps) {
        plan.delete_entries(set, unneeded_entries(set));
    }
    let deleted: Vec<VirtualServer> =
        snapshot.servers.keys().filter(|server| programmed.may_delete(server)).copied().collect();
    plan.draining.extend(deleted.iter().map(|server| (*server, BTreeSet::new())));
    if !deleted.is_empty() {
        let changes = deleted.into_iter().map(ServerChange::DeleteServer).collect();
        plan.operations.push(Operation::ChangeServers(changes));
    }
    plan.operations.push(Operation::DeleteAddresses(removed));
    plan.delete_entries(IpSet::IpvsIps, unneeded_entries(IpSet::IpvsIps));
    plan
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use portcullis_netlink::Family;
    use portcullis_netlink::ip_vs::{RealServer, RealServerState, VirtualServerConfig};

    use super::super::server_diff::FoundServer;
    use super::super::test_services::{ShortService, print_operations, programmed, update};
    use super::*;

    /// A virtual server as read from the kernel in short: the last byte of its address, those of its real servers.
    type ShortFound<'a> = (u8, Option<&'a [u8]>);

    fn server(last: u8) -> VirtualServer {
        VirtualServer { protocol: 6, address: IpAddr::from([10, 96, 0, last]), port: 80 }
    }

    fn found((last, real_servers): ShortFound<'_>) -> (VirtualServer, Option<FoundServer>) {
        let state = |last: &u8| RealServerState {
            server: RealServer { address: IpAddr::from([10, 244, 0, *last]), port: 8080, weight: 1 },
            forwarding: 0,
            active: 0,
            inactive: 0,
            persistent: 0,
        };
        let found = real_servers.map(|real_servers| FoundServer {
            config: VirtualServerConfig::new("rr", Family::V4),
            real_servers: real_servers.iter().map(state).collect(),
        });
        (server(last), found)
    }

    #[test]
    fn changes_are_written_in_an_order_in_which_no_packet_meets_half_a_service() {
        const A: ShortService<'_> = ("a", 1, &[1]);
        const B: ShortService<'_> = ("b", 1, &[2]);
        type Row<'a> =
            (&'a str, &'a [ShortService<'a>], &'a [ShortService<'a>], &'a [ShortFound<'a>], &'a str, &'a str);
        #[rustfmt::skip]
        let rows: [Row<'_>; 13] = [
            // name; Services before; Services after; read virtual servers; added entries; other operations
            ("no change", &[A], &[A], &[], "", "rules(filter nat)"),
            ("a new Service", &[], &[A], &[],
                "+IpvsIps +ClusterIp", "servers(+vs +1) rules(filter nat) +addresses(1)"),
            ("a removed Service", &[A], &[], &[],
                "", "rules(filter nat) -ClusterIp servers(-vs) -addresses(1) -IpvsIps"),
            ("a new address", &[A], &[("a", 2, &[1])], &[], "+IpvsIps +ClusterIp",
                "servers(+vs +1) rules(filter nat) +addresses(1) -ClusterIp servers(-vs) -addresses(1) -IpvsIps"),
            ("an added endpoint", &[A], &[("a", 1, &[1, 2])], &[], "", "servers(+2) rules(filter nat)"),
            ("a removed endpoint", &[("a", 1, &[1, 2])], &[A], &[], "", "servers(2=0) rules(filter nat)"),
            ("a Service without endpoints", &[A], &[("a", 1, &[])], &[], "", "servers(1=0) rules(filter nat)"),
            ("the next owner of a virtual server", &[A, B], &[B], &[], "", "servers(1=0 +2) rules(filter nat)"),
            ("an owner with a lesser name", &[B], &[A, B], &[], "", "servers(+1 2=0) rules(filter nat)"),
            ("an unverified server", &[A], &[A], &[(1, None)], "", "restore(+vs +1) rules(filter nat)"),
            ("an unverified server of a changed Service", &[A], &[("a", 1, &[1, 2])], &[(1, Some(&[1, 2, 3]))],
                "", "servers(3=0) rules(filter nat)"),
            ("an unverified server of a removed Service", &[A], &[], &[(1, None)],
                "", "rules(filter nat) -ClusterIp -addresses(1) -IpvsIps"),
            ("an unknown server", &[A], &[A], &[(7, Some(&[7]))], "", "restore(-vs) rules(filter nat)"),
        ];
        for (name, before, after, read, entries, expected) in rows {
            let mut programmed = programmed(before);
            let changes = programmed.update(update(before, after));
            let needed = |set| programmed.references().changed_entries(set, &changes.references).0;
            let added = add_entries(needed, &SetEntries::default());
            assert_eq!(print_operations(&added), entries, "{name}");
            let found = read.iter().copied().map(found).collect();
            let plan = incremental(&programmed, &changes, found, &Terminations::default());
            assert_eq!(print_operations(&plan.operations), expected, "{name}");
        }
    }

    #[test]
    fn removed_tcp_endpoints_drain_and_get_their_weight_back() {
        let (two, one): ([ShortService<'_>; 1], [ShortService<'_>; 1]) =
            ([("a", 1, &[1, 2])], [("a", 1, &[1])]);
        let mut programmed = programmed(&two);
        let mut terminations = Terminations::default();
        let changes = programmed.update(update(&two, &one));
        let plan = incremental(&programmed, &changes, FoundServers::new(), &terminations);
        let drained = SocketAddr::from(([10, 244, 0, 2], 8080));
        assert_eq!(plan.draining, [(server(1), [drained].into())].into());
        for (server, draining) in plan.draining {
            terminations.set(server, draining, std::time::Instant::now());
        }
        let changes = programmed.update(update(&one, &two));
        let plan = incremental(&programmed, &changes, FoundServers::new(), &terminations);
        assert_eq!(print_operations(&plan.operations), "servers(2=1) rules(filter nat)");
        assert_eq!(plan.draining, [(server(1), BTreeSet::new())].into());
    }

    #[test]
    fn unverified_servers_are_read_unless_their_service_waits_or_they_are_foreign() {
        const A: ShortService<'_> = ("a", 1, &[1]);
        const CHANGED: ShortService<'_> = ("a", 1, &[1, 2]);
        type Row<'a> = (&'a str, &'a [ShortService<'a>], &'a [ShortService<'a>], bool, [u8; 4], bool, bool);
        #[rustfmt::skip]
        let rows: [Row<'_>; 6] = [
            // name; Services before; Services after; its Service waits; address; is read; remains unverified
            ("a server of a Service", &[A], &[A], false, [10, 96, 0, 1], true, false),
            ("a server of a waiting Service", &[A], &[A], true, [10, 96, 0, 1], false, true),
            ("a server of a changed Service", &[A], &[CHANGED], true, [10, 96, 0, 1], true, false),
            ("a server of a removed Service", &[A], &[], false, [10, 96, 0, 1], true, false),
            ("an unknown server", &[A], &[A], false, [10, 96, 0, 9], true, false),
            ("a server with an excluded address", &[A], &[A], false, [10, 99, 0, 1], false, false),
        ];
        for (name, before, after, waits, address, is_read, remains) in rows {
            let mut programmed = programmed(before);
            let changes = programmed.update(update(before, after));
            let server = VirtualServer { protocol: 6, address: IpAddr::from(address), port: 80 };
            let mut unverified = BTreeSet::from([server]);
            let read = take_servers_to_read(&programmed, &changes, &mut unverified, |_| waits);
            assert_eq!((read == [server], !unverified.is_empty()), (is_read, remains), "{name}");
        }
    }

    #[test]
    fn entries_are_added_once_and_removed_when_unneeded() {
        let programmed = programmed(&[("a", 1, &[1])]);
        let needed = |set| programmed.references().entries(set).copied().collect::<Vec<_>>();
        let mut added = SetEntries::default();
        added[IpSet::IpvsIps] = needed(IpSet::IpvsIps);
        assert_eq!(print_operations(&add_entries(needed, &added)), "+ClusterIp");
        let unneeded = SetEntry::Ip(IpAddr::from([10, 96, 0, 9]));
        added[IpSet::IpvsIps].push(unneeded);
        let operations = delete_unneeded_entries(&programmed, &mut added);
        assert_eq!(operations, [Operation::DeleteEntries(IpSet::IpvsIps, vec![unneeded])]);
        assert_eq!(added[IpSet::IpvsIps], needed(IpSet::IpvsIps));
    }

    #[test]
    fn a_full_sync_removes_what_no_service_needs() {
        const FIRST: &[Table] = &[Table::Filter];
        type Row<'a> = (&'a str, &'a [u8], &'a [IpAddr], &'a [u8], &'a str);
        let [needed, unneeded, excluded] = [[10, 96, 0, 1], [10, 96, 0, 9], [10, 99, 0, 1]].map(IpAddr::from);
        #[rustfmt::skip]
        let rows: [Row<'_>; 4] = [
            // name; last bytes of addresses on the interface; remaining servers; last bytes in KUBE-IPVS-IPS; operations
            ("an empty kernel", &[], &[], &[], "rules(filter) +addresses(1) rules(filter nat) -addresses(0)"),
            ("a kernel in sync", &[1], &[], &[1], "rules(filter) +addresses(0) rules(filter nat) -addresses(0)"),
            ("an unneeded server", &[1, 9], &[unneeded], &[1, 9],
                "rules(filter) +addresses(0) rules(filter nat) servers(-vs) -addresses(1) -IpvsIps"),
            ("a server with an excluded address", &[1], &[excluded], &[1],
                "rules(filter) +addresses(0) rules(filter nat) -addresses(0)"),
        ];
        for (name, addresses, servers, entries, expected) in rows {
            let programmed = programmed(&[("a", 1, &[1])]);
            assert!(programmed.references().needs_address(&needed));
            let mut snapshot = FamilySnapshot::default();
            let address = |last: &u8| IpAddr::from([10, 96, 0, *last]);
            snapshot.addresses = addresses.iter().map(address).collect();
            snapshot.entries[IpSet::IpvsIps] = entries.iter().map(address).map(SetEntry::Ip).collect();
            let config = VirtualServerConfig::new("rr", Family::V4);
            let server = |address: &IpAddr| VirtualServer { protocol: 6, address: *address, port: 80 };
            snapshot.servers = servers.iter().map(|address| (server(address), config.clone())).collect();
            let plan = full(&programmed, &snapshot, FIRST);
            assert_eq!(print_operations(&plan.operations), expected, "{name}");
        }
    }
}
