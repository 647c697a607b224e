//! Connections outlive their endpoint in IPVS mode: it gets no new ones, and goes when the old ones have ended.

use std::time::Duration;

use portcullis_lab::{Conversation, Protocol, Vantage, uml};

use crate::bed::{Bed, Setup};
use crate::mode::Mode;
use crate::row::{client, cluster_ip};
use crate::tools;

/// The kernel remembers a connection that was reset for 10 s, and the daemon asks after 1, 5 and 21 s.
const REMEMBERED: Duration = Duration::from_secs(45);

#[test]
fn a_tcp_connection_outlives_its_endpoint_by_ipvs() {
    uml::inside(|| {
        let mut bed = Setup::of("web.yaml").mode(Mode::Ipvs).up();
        let to = bed.address(cluster_ip("web", 80));
        let open = || bed.from(client(1)).open(Protocol::Tcp, to).unwrap();
        let mut conversations: Vec<Conversation> = (0..9).map(|_| open()).collect();
        conversations.retain_mut(|c| c.ask("who").by() == Some("default/a"));
        assert!(!conversations.is_empty(), "endpoints take turns, so some met a");
        assert_eq!(weight_of_a(&bed), Some(1));

        bed.lab.terminate("a").unwrap();
        bed.synced();
        goes_on_without_new_ones(&bed, &mut conversations);

        // Whoever comes after a daemon that was killed knows no more than the kernel.
        bed.kill_daemon("node-1");
        bed.lab.start_daemon("node-1").unwrap();
        bed.synced();
        goes_on_without_new_ones(&bed, &mut conversations);

        conversations.into_iter().for_each(|conversation| conversation.abort().unwrap());
        bed.wait_until("a is taken out when its connections have ended", REMEMBERED, |bed| {
            weight_of_a(bed).is_none()
        });
    });
}

fn goes_on_without_new_ones(bed: &Bed, conversations: &mut [Conversation]) {
    assert_eq!(weight_of_a(bed), Some(0));
    for conversation in conversations {
        assert_eq!(conversation.ask("still there").by(), Some("default/a"));
    }
    let fresh = bed.from(client(1)).tcp_many(bed.address(cluster_ip("web", 80)), 12);
    assert!(fresh.others.is_empty() && !fresh.by.contains_key("default/a"), "{fresh:?}");
}

/// The weight of pod a behind the ClusterIP on node-1, if it is there.
fn weight_of_a(bed: &Bed) -> Option<u32> {
    let netns = bed.lab.netns(&Vantage::node("node-1")).unwrap();
    let a = bed.lab.plan().pod("a").unwrap().addresses.iter().find(|ip| ip.is_ipv4()).unwrap();
    let to = bed.address(cluster_ip("web", 80));
    let dump = tools::output(netns.command("ipvsadm").arg("-Sn"));
    let line = dump.lines().find(|l| l.starts_with(&format!("-a -t {to} -r {a}:")))?;
    line.rsplit(' ').next()?.parse().ok()
}
