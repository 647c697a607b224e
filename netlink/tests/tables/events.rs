//! Who else changed a table.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use portcullis_netlink::nf_tables::{self, Element, RulesetEvents};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use crate::namespace::{inside, run};
use crate::round_trip::write;
use crate::sample::{NAME, key, name, sample};

#[test]
fn the_changes_of_others_are_told_and_our_own_are_not() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        let mut events = RulesetEvents::listen(NAME, &socket).unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || while events.wait(|batch| _ = sender.send(batch)).is_ok() {});
        let rows = [
            ("nft add table inet another".to_owned(), false),
            (format!("nft add chain inet {NAME} theirs"), true),
            (format!("nft delete element inet {NAME} peers {{ 10.0.0.1 }}"), true),
            ("nft add chain inet another theirs".to_owned(), false),
            ("nft flush ruleset".to_owned(), true),
        ];
        for (change, touches) in rows {
            managed.put_element(&name("peers6"), key("fd00::7"), Element::new());
            nf_tables::commit(&mut socket, &mut managed).unwrap();
            run(&change);
            let batch = receiver.recv_timeout(Duration::from_secs(5)).expect(&change);
            assert_eq!((batch.is_relevant, batch.process_name.as_str()), (touches, "nft"), "{change}");
            assert!(batch.pid > 0, "{change}");
            managed.invalidate();
        }
        assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err(), "one event a change");
    });
}

#[test]
fn changes_of_iptables_chains_are_reported() {
    inside(|| {
        run("iptables-nft -t nat -N KUBE-SERVICES");
        run("iptables-nft -t nat -A PREROUTING -j KUBE-SERVICES");
        run("iptables-nft -t nat -A PREROUTING -j ACCEPT");
        run("iptables-nft -t nat -N CNI-1");
        let mut events = RulesetEvents::listen_to_iptables("KUBE-").unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || while events.wait(|batch| _ = sender.send(batch)).is_ok() {});
        for (change, touches) in [
            ("iptables-nft -t nat -A KUBE-SERVICES -j RETURN", true),
            ("iptables-nft -t nat -F KUBE-SERVICES", true),
            ("iptables-nft -t nat -A CNI-1 -j RETURN", false),
            ("iptables-nft -t nat -F CNI-1", false),
            ("iptables-nft -t nat -I PREROUTING -j CNI-1", false),
            ("iptables-nft -t nat -D PREROUTING -j KUBE-SERVICES", true),
            ("iptables-nft -t nat -X KUBE-SERVICES", true),
            ("nft add chain inet filter KUBE-SERVICES", false),
            ("nft add table ip another", false),
            ("nft add chain ip another KUBE-SERVICES", false),
            ("nft delete table ip nat", true),
        ] {
            if change.contains("inet filter") {
                run("nft add table inet filter");
                receiver.recv_timeout(Duration::from_secs(5)).expect("a table is made");
            }
            run(change);
            let batch = receiver.recv_timeout(Duration::from_secs(5)).expect(change);
            assert_eq!(batch.is_relevant, touches, "{change}");
            let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
            assert_eq!(batch.generation, nf_tables::generation(&mut socket).unwrap(), "{change}");
        }
    });
}
