//! The connections that are checked at a quiet moment.

use portcullis_lab::Protocol;

use super::cluster::ModelCluster;
use super::model::{Client, Connection};
use super::pools::{
    ALL_PODS, NODE, NODE_ECHO_PORT, SCTP_PORT, SERVICE_PORTS, SHARED_EXTERNAL_IPS, STABLE, ServiceSlot,
    TCP_PORTS, UDP_PORT, node_addresses,
};
use super::random::Random;

/// Returns all clients whose connections pass the daemon's node.
fn clients() -> Vec<Client> {
    let on_node = (0..ALL_PODS.len()).filter(|index| ALL_PODS[*index].node == NODE);
    on_node.map(Client::Pod).chain([Client::Node, Client::Outside]).collect()
}

/// Returns a random sample: half of them to frontends of Services that exist.
pub(crate) fn sample(random: &mut Random, cluster: &ModelCluster, count: usize) -> Vec<Connection> {
    let is_served = |connection: &Connection| {
        let is_node = node_addresses(NODE).contains(&connection.to.ip());
        cluster.frontend(connection.to, connection.protocol, is_node).is_some()
    };
    let (served, others): (Vec<Connection>, Vec<Connection>) = all().into_iter().partition(is_served);
    let mut sampled = random.sample(served, count / 2);
    let rest = count - sampled.len();
    sampled.extend(random.sample(others, rest));
    sampled
}

fn all() -> Vec<Connection> {
    let mut all = Vec::new();
    for client in clients() {
        let mut add = |to: std::net::IpAddr, (port, protocol): (u16, Protocol)| {
            all.push(Connection { client, to: (to, port).into(), protocol });
        };
        for slot in ServiceSlot::all() {
            let node = node_addresses(NODE);
            for family in 0..2 {
                let mut virtual_ips = vec![slot.load_balancer_ips[family], slot.external_ips[family]];
                virtual_ips.push(SHARED_EXTERNAL_IPS[family].parse().expect("an address"));
                // Packets from outside do not reach cluster IPs.
                virtual_ips.extend((client != Client::Outside).then_some(slot.cluster_ips[family]));
                for ip in virtual_ips {
                    SERVICE_PORTS.into_iter().for_each(|port| add(ip, port));
                }
                slot.node_ports.into_iter().for_each(|port| add(node[family], port));
            }
        }
        // Policies of pods of this node, and egress to pods of the other one.
        for (index, pod) in ALL_PODS.iter().enumerate() {
            let is_on_node = pod.node == NODE;
            if client == Client::Pod(index) || (client == Client::Outside && !is_on_node) {
                continue;
            }
            for ip in pod.addresses() {
                TCP_PORTS.into_iter().for_each(|port| add(ip, (port, Protocol::Tcp)));
                add(ip, (UDP_PORT, Protocol::Udp));
                add(ip, (SCTP_PORT, Protocol::Sctp));
            }
        }
        if client != Client::Node {
            node_addresses(NODE).into_iter().for_each(|ip| add(ip, (NODE_ECHO_PORT, Protocol::Tcp)));
        }
        if client != Client::Outside {
            add(STABLE.ip(), (STABLE.port(), Protocol::Tcp));
        }
    }
    // Pods of the other node reach this node's pods and node ports.
    let far: Vec<usize> = (0..ALL_PODS.len()).filter(|index| ALL_PODS[*index].node != NODE).collect();
    for index in far {
        let client = Client::Pod(index);
        for family in 0..2 {
            for slot in ServiceSlot::all() {
                let to = (node_addresses(NODE)[family], slot.node_ports[0].0).into();
                all.push(Connection { client, to, protocol: Protocol::Tcp });
            }
            for pod in ALL_PODS.iter().filter(|pod| pod.node == NODE) {
                let to = (pod.addresses()[family], TCP_PORTS[0]).into();
                all.push(Connection { client, to, protocol: Protocol::Tcp });
            }
        }
    }
    all
}
