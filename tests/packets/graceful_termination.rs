//! Graceful termination in IPVS mode: a terminating endpoint gets no new connections, and is removed when the old ones
//! have ended.

use std::time::Duration;

use portcullis_lab::{EchoClient, Protocol, Vantage};
use portcullis_machines::uml;

use crate::mode::Mode;
use crate::row::{client, cluster_ip};
use crate::testbed::{Setup, Testbed};
use crate::tools;

/// The kernel keeps a reset connection for 10 s, and the daemon counts after 1, 5 and 21 s.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(45);

#[test]
fn a_tcp_connection_outlives_its_endpoint_by_ipvs() {
    uml::inside(|| {
        let mut testbed = Setup::new("web.yaml").mode(Mode::Ipvs).up();
        let to = testbed.address(cluster_ip("web", 80));
        let open = || testbed.from(client(1)).open(Protocol::Tcp, to).unwrap();
        let mut clients: Vec<EchoClient> = (0..9).map(|_| open()).collect();
        clients.retain_mut(|c| c.exchange("who").responder() == Some("default/a"));
        assert!(!clients.is_empty(), "round robin reaches a");
        assert_eq!(weight_of_a(&testbed), Some(1));

        testbed.lab.terminate("a").unwrap();
        testbed.synced();
        assert_terminating(&testbed, &mut clients);

        // A daemon that starts after a kill knows only the kernel's state.
        testbed.kill_daemon("node-1");
        testbed.lab.start_daemon("node-1").unwrap();
        testbed.synced();
        assert_terminating(&testbed, &mut clients);

        clients.into_iter().for_each(|client| client.abort().unwrap());
        testbed.wait_until("a is removed when its connections have ended", REMOVAL_TIMEOUT, |testbed| {
            weight_of_a(testbed).is_none()
        });
    });
}

fn assert_terminating(testbed: &Testbed, clients: &mut [EchoClient]) {
    assert_eq!(weight_of_a(testbed), Some(0));
    for client in clients {
        assert_eq!(client.exchange("still there").responder(), Some("default/a"));
    }
    let fresh = testbed.from(client(1)).tcp_many(testbed.address(cluster_ip("web", 80)), 12);
    assert!(fresh.failures.is_empty() && !fresh.by_responder.contains_key("default/a"), "{fresh:?}");
}

/// Returns the weight of pod a behind the cluster IP on node-1, if it is a real server.
fn weight_of_a(testbed: &Testbed) -> Option<u32> {
    let netns = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
    let a = testbed.lab.plan().pod("a").unwrap().addresses.iter().find(|ip| ip.is_ipv4()).unwrap();
    let to = testbed.address(cluster_ip("web", 80));
    let dump = tools::output(netns.command("ipvsadm").arg("-Sn"));
    let line = dump.lines().find(|l| l.starts_with(&format!("-a -t {to} -r {a}:")))?;
    line.rsplit(' ').next()?.parse().ok()
}
