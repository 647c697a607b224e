//! Terminated connections must not be picked up again by a packet in the allowed direction: TCP segments in the middle
//! of a connection, by sender.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use portcullis_netlink::nf_tables::{CtState, Fate, Hook, Packet, TCP_SYN, TCP_SYN_ECN};
use portcullis_policy::compile::PolicyChanges;
use portcullis_policy::table::{PolicyOptions, PolicyTable};
use portcullis_policy::{Compiler, Scope};
use serde_json::json;
use support::CompiledCluster;

const ACK: u8 = 0x10;

/// A pod that is isolated for ingress, one that is isolated for egress, and one that is not isolated.
const SERVER: &str = "10.0.0.1";
const CLIENT: &str = "10.0.0.2";
const NOT_ISOLATED: &str = "10.0.0.3";
const OTHER_HOST: &str = "10.9.0.9";

fn cluster() -> CompiledCluster {
    let mut cluster = CompiledCluster::new(&[]);
    for (name, address) in [("server", SERVER), ("client", CLIENT), ("not-isolated", NOT_ISOLATED)] {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "red", "name": name, "labels": {"app": name}},
            "status": {"podIPs": [{"ip": address}]},
        }));
    }
    for (name, direction) in [("server", "Ingress"), ("client", "Egress")] {
        cluster.apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "red", "name": name},
            "spec": {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": [direction]},
        }));
    }
    cluster
}

#[test]
fn only_the_restricted_direction_picks_up_a_connection() {
    let cluster = cluster();
    let compiler = Compiler::from_index(Scope::Cluster, &cluster.index);
    // Case, source, destination, TCP flags, tracked, result with termination, result without
    let rows = [
        ("reply of a server", SERVER, OTHER_HOST, ACK, false, Fate::Dropped, Fate::Accepted),
        ("SYN and ACK of a server", SERVER, OTHER_HOST, TCP_SYN | ACK, false, Fate::Dropped, Fate::Accepted),
        ("SYN of a server", SERVER, OTHER_HOST, TCP_SYN, false, Fate::Accepted, Fate::Accepted),
        (
            "SYN with congestion notification",
            SERVER,
            OTHER_HOST,
            TCP_SYN_ECN,
            false,
            Fate::Accepted,
            Fate::Accepted,
        ),
        ("tracked", SERVER, OTHER_HOST, ACK, true, Fate::Accepted, Fate::Accepted),
        ("reply to a client", OTHER_HOST, CLIENT, ACK, false, Fate::Dropped, Fate::Accepted),
        ("SYN to a client", OTHER_HOST, CLIENT, TCP_SYN, false, Fate::Accepted, Fate::Accepted),
        ("packet of a client", CLIENT, OTHER_HOST, ACK, false, Fate::Dropped, Fate::Dropped),
        (
            "from a pod that is not isolated",
            NOT_ISOLATED,
            OTHER_HOST,
            ACK,
            false,
            Fate::Accepted,
            Fate::Accepted,
        ),
        (
            "to a pod that is not isolated",
            OTHER_HOST,
            NOT_ISOLATED,
            ACK,
            false,
            Fate::Accepted,
            Fate::Accepted,
        ),
    ];
    for terminates_connections in [true, false] {
        let mut table =
            PolicyTable::new(PolicyOptions { terminates_connections, ..PolicyOptions::default() });
        table.apply(&PolicyChanges::all(compiler.compiled()), compiler.compiled());
        for (what, from, to, tcp_flags, tracked, with, without) in &rows {
            let [from, to] = [from, to].map(|address| address.parse().unwrap());
            let state = if *tracked { CtState::ESTABLISHED } else { CtState::NEW };
            let packet = Packet { tcp_flags: *tcp_flags, state, ..Packet::new(from, to, 6, 80) };
            let trace = table.table().desired().trace(Hook::Postrouting, &packet, &mut |_| 0);
            assert_eq!(
                trace.fate,
                if terminates_connections { with.clone() } else { without.clone() },
                "{what}, terminates_connections: {terminates_connections}"
            );
            let counted: Vec<&str> = trace.counters.iter().map(|name| &**name).collect();
            let is_counted = terminates_connections && with != without;
            assert_eq!(counted.contains(&"cut-connections"), is_counted, "{what}: {counted:?}");
        }
    }
}
