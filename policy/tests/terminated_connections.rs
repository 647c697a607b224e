//! A connection that was cut is not taken up again by the end that may speak: TCP segments in the midst of a connection,
//! by who sends them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use portcullis_netlink::nf_tables::{CtState, Fate, Hook, Packet, TCP_SYN, TCP_SYN_ECN};
use portcullis_policy::compile::PolicyChanges;
use portcullis_policy::table::{PolicyOptions, PolicyTable};
use portcullis_policy::{Compiler, Scope};
use serde_json::json;
use support::CompiledCluster;

const ACK: u8 = 0x10;

/// A pod that takes nothing, one that sends nothing, and one that is free.
const SERVER: &str = "10.0.0.1";
const CLIENT: &str = "10.0.0.2";
const FREE: &str = "10.0.0.3";
const ELSEWHERE: &str = "10.9.0.9";

fn cluster() -> CompiledCluster {
    let mut cluster = CompiledCluster::new(&[]);
    for (name, address) in [("server", SERVER), ("client", CLIENT), ("free", FREE)] {
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
fn only_who_is_judged_takes_a_connection_up() {
    let cluster = cluster();
    let compiler = Compiler::from_index(Scope::Cluster, &cluster.index);
    // From, to, flags, whether it is of a connection that is tracked; what becomes of it with terminates_connections, and without.
    let rows = [
        ("a server answers", SERVER, ELSEWHERE, ACK, false, Fate::Dropped, Fate::Accepted),
        ("a server's SYN and ACK", SERVER, ELSEWHERE, TCP_SYN | ACK, false, Fate::Dropped, Fate::Accepted),
        ("a server connects", SERVER, ELSEWHERE, TCP_SYN, false, Fate::Accepted, Fate::Accepted),
        (
            "with congestion notification",
            SERVER,
            ELSEWHERE,
            TCP_SYN_ECN,
            false,
            Fate::Accepted,
            Fate::Accepted,
        ),
        ("tracked", SERVER, ELSEWHERE, ACK, true, Fate::Accepted, Fate::Accepted),
        ("a client is answered", ELSEWHERE, CLIENT, ACK, false, Fate::Dropped, Fate::Accepted),
        ("a client is asked", ELSEWHERE, CLIENT, TCP_SYN, false, Fate::Accepted, Fate::Accepted),
        ("a client asks", CLIENT, ELSEWHERE, ACK, false, Fate::Dropped, Fate::Dropped),
        ("between the free", FREE, ELSEWHERE, ACK, false, Fate::Accepted, Fate::Accepted),
        ("to the free", ELSEWHERE, FREE, ACK, false, Fate::Accepted, Fate::Accepted),
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
            let is_cut = terminates_connections && with != without;
            assert_eq!(counted.contains(&"cut-connections"), is_cut, "{what}: {counted:?}");
        }
    }
}
