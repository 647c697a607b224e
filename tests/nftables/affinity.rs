//! Session affinity over two connections of a client: the first one writes an entry, which decides about the second.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use portcullis_cluster::desired::{Desired, DirtyServices, ServicePort};
use portcullis_cluster::{Event, Index, Object};
use portcullis_modes::nftables::ServiceTable;
use portcullis_netlink::nf_tables::{Packet, PacketPath, Table};

use crate::outcome::{Node, Outcome};
use crate::services::{bring, objects};
use crate::states::State;
use crate::{probes, states};

/// Returns the frontends of a port: all its addresses, and its node port.
fn frontends(state: &State<'_>, port: &ServicePort) -> Vec<(IpAddr, u16)> {
    let addresses = port.cluster_ip.into_iter();
    let addresses = addresses.chain(port.external_ips.iter().chain(&port.load_balancer_vips).copied());
    let node_port = port.node_port.zip(state.node.node_ip(state.family));
    let node_port = node_port.map(|(port, ip)| (ip, port.get()));
    addresses.map(|ip| (ip, port.port.get())).chain(node_port).collect()
}

/// Returns the packets of an external client and of a pod on this node.
fn client_packets(state: &State<'_>, port: &ServicePort, (ip, number): (IpAddr, u16)) -> [Packet; 2] {
    let pod = if ip.is_ipv4() { "10.244.1.99" } else { "fd00:10:244:1::99" };
    let pod = pod.parse().expect("an address");
    [(probes::external_client(state), "eth0"), (pod, "cni0")].map(|(source, interface)| {
        let packet = Packet::new(source, ip, port.name.protocol.number(), number);
        Packet { input: Some((7, interface.into())), ..packet }
    })
}

/// Returns the table with the entries that a packet writes.
fn table_after(table: &Table, path: &PacketPath) -> Table {
    let mut table = table.clone();
    path.chains.iter().flat_map(|chain| &chain.trace.set_writes).for_each(|write| table.apply(write));
    table
}

/// Returns the endpoints to which a packet may be forwarded, each with the table after it.
fn endpoints_of(node: &Node<'_>, packet: &Packet) -> Vec<(SocketAddr, Table)> {
    let paths = node.paths(packet).into_iter();
    let endpoints = paths.filter_map(|(path, _)| {
        Some((Outcome::from_path(&path).endpoint()?, table_after(node.table, &path)))
    });
    let mut endpoints: Vec<_> = endpoints.collect();
    endpoints.sort_by_key(|(endpoint, _)| *endpoint);
    endpoints.dedup_by_key(|(endpoint, _)| *endpoint);
    endpoints
}

/// Returns our table after an endpoint was removed from the state.
fn table_without(state: &State<'_>, removed: IpAddr) -> ServiceTable {
    let now = Instant::now();
    let (mut index, mut desired) = (Index::new(), Desired::new(state.case.node()));
    let mut table = ServiceTable::new(state.family, state.options, state.node);
    let mut update = |index: &Index, dirty: DirtyServices| {
        let changes = desired.update(index, dirty);
        table.apply(&desired, &changes, now);
    };
    let dirty = bring(&mut index, state.file);
    update(&index, dirty);
    let mut dirty = DirtyServices::default();
    for object in objects(state.file) {
        if let Object::EndpointSlice(mut slice) = object {
            slice.endpoints = slice.endpoints.filtered(|endpoint| endpoint.address != removed);
            dirty.extend(index.handle(Event::Applied(Object::EndpointSlice(slice))));
        }
    }
    update(&index, dirty);
    table
}

pub fn clients_keep_their_endpoint_as_with_kube_proxy() {
    let mut counts = Counts::default();
    states::each(|state| {
        let addresses = &probes::node_addresses(state)[..];
        for port in state.ports().filter(|port| port.affinity.is_some()) {
            let frontends = &frontends(state, port);
            for (frontend, index) in frontends.iter().flat_map(|frontend| [(*frontend, 0), (*frontend, 1)]) {
                let client = Client { state, port, addresses, frontends, frontend, index };
                client.assert_affinity(&mut counts);
            }
        }
    });
    let Counts { second_connections, removed_endpoints } = counts;
    assert!(
        second_connections > 100 && removed_endpoints > 50,
        "only {second_connections} second connections, {removed_endpoints} removed endpoints"
    );
}

#[derive(Default)]
struct Counts {
    second_connections: usize,
    removed_endpoints: usize,
}

/// A client of a port, and the frontend of its first connection.
struct Client<'a> {
    state: &'a State<'a>,
    port: &'a ServicePort,
    addresses: &'a [IpAddr],
    frontends: &'a [(IpAddr, u16)],
    frontend: (IpAddr, u16),
    /// 0 for the external client, 1 for the pod.
    index: usize,
}

impl Client<'_> {
    fn packet(&self, frontend: (IpAddr, u16), index: usize) -> Packet {
        client_packets(self.state, self.port, frontend)[index].clone()
    }

    fn node<'t>(&'t self, table: &'t Table) -> Node<'t> {
        Node { table, addresses: self.addresses }
    }

    /// Connects a first time, to each endpoint once.
    fn assert_affinity(&self, counts: &mut Counts) {
        let State { theirs, ours, .. } = self.state;
        let packet = self.packet(self.frontend, self.index);
        let [theirs, ours] = [theirs, ours].map(|table| endpoints_of(&self.node(table), &packet));
        assert_eq!(theirs.len(), ours.len(), "{}: {packet:?}", self.state.name());
        for ((endpoint, theirs), (same, ours)) in theirs.iter().zip(&ours) {
            assert_eq!(endpoint, same, "{}: {packet:?}", self.state.name());
            for frontend in self.frontends {
                self.connect_again(*frontend, *endpoint, theirs, ours);
                counts.second_connections += 1;
            }
            // Entries of one client do not affect another.
            let other = self.packet(self.frontend, 1 - self.index);
            let [before, after] = [&self.state.ours, ours].map(|table| self.node(table).outcomes(&other));
            assert_eq!(before, after, "{}: {other:?}", self.state.name());
            remove_endpoint(self.state, &packet, *endpoint, ours, self.addresses);
            counts.removed_endpoints += 1;
        }
    }

    /// Connects a second time, to any frontend.
    fn connect_again(&self, frontend: (IpAddr, u16), endpoint: SocketAddr, theirs: &Table, ours: &Table) {
        let packet = self.packet(frontend, self.index);
        let what = || format!("{}: {packet:?} after {endpoint}", self.state.name());
        let [theirs, ours] = [theirs, ours].map(|table| self.node(table).outcomes(&packet));
        assert_eq!(theirs, ours, "{}", what());
        let is_same = ours.keys().all(|outcome| outcome.endpoint() == Some(endpoint));
        assert!(is_same || frontend != self.frontend, "{} goes elsewhere: {ours:?}", what());
    }
}

/// Removes the client's endpoint: the client must be forwarded to another one, and keep that.
fn remove_endpoint(
    state: &State<'_>,
    packet: &Packet,
    removed: SocketAddr,
    before: &Table,
    addresses: &[IpAddr],
) {
    let mut table = table_without(state, removed.ip()).desired().clone();
    let without_entry = Node { table: &table, addresses }.outcomes(packet);
    for (name, set) in &before.sets {
        if let Some(after) = table.sets.get_mut(name).filter(|_| set.spec.dynamic) {
            after.elements = set.elements.clone();
        }
    }
    let node = Node { table: &table, addresses };
    assert_eq!(node.outcomes(packet), without_entry, "{}: {packet:?} after {removed}", state.name());
    for (path, _) in node.paths(packet) {
        let Some(new) = Outcome::from_path(&path).endpoint() else { continue };
        assert_ne!(new.ip(), removed.ip());
        let table = table_after(&table, &path);
        let again = Node { table: &table, addresses }.outcomes(packet);
        assert!(
            again.keys().all(|outcome| outcome.endpoint() == Some(new)),
            "{}: {packet:?}: {again:?}",
            state.name()
        );
    }
}
