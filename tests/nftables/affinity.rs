//! What a client's first packet writes, and where its second one goes by that.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use portcullis_cluster::desired::{Desired, ServicePort};
use portcullis_cluster::{Event, Index, Object};
use portcullis_modes::nftables::ServiceTable;
use portcullis_netlink::nf_tables::{Packet, PacketPath, Table};

use crate::outcome::{End, Node};
use crate::services::{bring, objects};
use crate::states::State;
use crate::{probes, states};

/// What a Service's port is reached by: all its addresses, and its node port.
fn fronts(state: &State<'_>, port: &ServicePort) -> Vec<(IpAddr, u16)> {
    let addresses = port.cluster_ip.into_iter();
    let addresses = addresses.chain(port.external_ips.iter().chain(&port.load_balancer_vips).copied());
    let node_port = port.node_port.zip(state.host.node_ip(state.family));
    let node_port = node_port.map(|(port, ip)| (ip, port.get()));
    addresses.map(|ip| (ip, port.port.get())).chain(node_port).collect()
}

/// A client outside, and one in a pod of this node.
fn clients(state: &State<'_>, port: &ServicePort, (ip, number): (IpAddr, u16)) -> [Packet; 2] {
    let pod = if ip.is_ipv4() { "10.244.1.99" } else { "fd00:10:244:1::99" };
    let pod = pod.parse().expect("an address");
    [(probes::outside(state), "eth0"), (pod, "cni0")].map(|(source, interface)| {
        let packet = Packet::new(source, ip, port.name.protocol.number(), number);
        Packet { input: Some((7, interface.into())), ..packet }
    })
}

/// The table after a packet's journey.
fn remembering(table: &Table, journey: &PacketPath) -> Table {
    let mut table = table.clone();
    journey
        .chains
        .iter()
        .flat_map(|passage| &passage.trace.set_writes)
        .for_each(|written| table.apply(written));
    table
}

/// The endpoints that a packet is led to, each with the table that remembers it.
fn served(node: &Node<'_>, packet: &Packet) -> Vec<(SocketAddr, Table)> {
    let journeys = node.journeys(packet).into_iter();
    let led = journeys
        .filter_map(|(journey, _)| Some((End::of(&journey).endpoint()?, remembering(node.table, &journey))));
    let mut led: Vec<_> = led.collect();
    led.sort_by_key(|(endpoint, _)| *endpoint);
    led.dedup_by_key(|(endpoint, _)| *endpoint);
    led
}

/// Our table after an endpoint's address is gone from the state.
fn without(state: &State<'_>, gone: IpAddr) -> ServiceTable {
    let now = Instant::now();
    let (mut index, mut desired) = (Index::new(), Desired::new(state.case.node()));
    let mut table = ServiceTable::new(state.family, state.options, state.host);
    let mut follow = |index: &mut Index| {
        let touched = index.take_dirty_services();
        let changes = desired.update(index, touched);
        table.apply(&desired, &changes, now);
    };
    bring(&mut index, state.file);
    follow(&mut index);
    for object in objects(state.file) {
        if let Object::EndpointSlice(mut slice) = object {
            slice.endpoints = slice.endpoints.into_iter().filter(|e| e.address != gone).collect();
            index.handle(Event::Applied(Object::EndpointSlice(slice)));
        }
    }
    follow(&mut index);
    table
}

#[test]
fn clients_stay_with_their_endpoint_as_by_kube_proxy() {
    let mut counts = Counts::default();
    states::each(
        |_| true,
        |state| {
            let addresses = &probes::own(state)[..];
            for port in state.ports().filter(|port| port.affinity.is_some()) {
                let fronts = fronts(state, port);
                for (front, who) in fronts.iter().flat_map(|front| [(front, 0), (front, 1)]) {
                    Client { state, port, addresses, fronts: &fronts, front: *front, who }.comes(&mut counts);
                }
            }
        },
    );
    let Counts { second, elsewhere } = counts;
    assert!(second > 100 && elsewhere > 50, "only {second} second packets, {elsewhere} that went elsewhere");
}

#[derive(Default)]
struct Counts {
    second: usize,
    elsewhere: usize,
}

/// A client of a Service's port, by one of its fronts.
struct Client<'a> {
    state: &'a State<'a>,
    port: &'a ServicePort,
    addresses: &'a [IpAddr],
    fronts: &'a [(IpAddr, u16)],
    front: (IpAddr, u16),
    who: usize,
}

impl Client<'_> {
    fn packet(&self, front: (IpAddr, u16), who: usize) -> Packet {
        clients(self.state, self.port, front)[who].clone()
    }

    fn node<'t>(&'t self, table: &'t Table) -> Node<'t> {
        Node { table, addresses: self.addresses }
    }

    /// It comes a first time, to each endpoint once.
    fn comes(&self, counts: &mut Counts) {
        let State { theirs, ours, .. } = self.state;
        let packet = self.packet(self.front, self.who);
        let [theirs, ours] = [theirs, ours].map(|table| served(&self.node(table), &packet));
        assert_eq!(theirs.len(), ours.len(), "{}: {packet:?}", self.state.name());
        for ((endpoint, theirs), (same, ours)) in theirs.iter().zip(&ours) {
            assert_eq!(endpoint, same, "{}: {packet:?}", self.state.name());
            for again in self.fronts {
                self.comes_again(*again, *endpoint, theirs, ours);
                counts.second += 1;
            }
            // Somebody else is not bound.
            let other = self.packet(self.front, 1 - self.who);
            let [before, after] = [&self.state.ours, ours].map(|table| self.node(table).outcome(&other));
            assert_eq!(before, after, "{}: {other:?}", self.state.name());
            endpoint_goes(self.state, &packet, *endpoint, ours, self.addresses);
            counts.elsewhere += 1;
        }
    }

    /// It comes a second time, by whichever front.
    fn comes_again(&self, front: (IpAddr, u16), endpoint: SocketAddr, theirs: &Table, ours: &Table) {
        let packet = self.packet(front, self.who);
        let what = || format!("{}: {packet:?} after {endpoint}", self.state.name());
        let [theirs, ours] = [theirs, ours].map(|table| self.node(table).outcome(&packet));
        assert_eq!(theirs, ours, "{}", what());
        let is_same = ours.keys().all(|end| end.endpoint() == Some(endpoint));
        assert!(is_same || front != self.front, "{} goes elsewhere: {ours:?}", what());
    }
}

/// The client's endpoint goes away, and it goes to those that are left, and stays with that.
fn endpoint_goes(state: &State<'_>, packet: &Packet, gone: SocketAddr, before: &Table, addresses: &[IpAddr]) {
    let mut table = without(state, gone.ip()).desired().clone();
    let unbound = Node { table: &table, addresses }.outcome(packet);
    for (name, set) in &before.sets {
        if let Some(after) = table.sets.get_mut(name).filter(|_| set.spec.dynamic) {
            after.elements = set.elements.clone();
        }
    }
    let node = Node { table: &table, addresses };
    assert_eq!(node.outcome(packet), unbound, "{}: {packet:?} after {gone} went", state.name());
    for (journey, _) in node.journeys(packet) {
        let Some(new) = End::of(&journey).endpoint() else { continue };
        assert_ne!(new.ip(), gone.ip());
        let table = remembering(&table, &journey);
        let again = Node { table: &table, addresses }.outcome(packet);
        assert!(
            again.keys().all(|end| end.endpoint() == Some(new)),
            "{}: {packet:?}: {again:?}",
            state.name()
        );
    }
}
