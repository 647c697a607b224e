//! Who else changed a table.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::{
    self, DataType, DesiredTable, Element, Key, RulesetEvents, Set, SetSpec, TableFamily,
};
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

/// Gives a table a large set, whose elements depend on the round.
fn fill(table: &mut DesiredTable, round: u32, count: u32) {
    let elements = (0..count).map(|n| {
        let address = Ipv4Addr::from(0x0a00_0000 + round * count + n);
        (Key::from(IpAddr::from(address)), Element::new())
    });
    let spec = SetSpec::new(&[DataType::Ipv4Addr]);
    table.put_set(&name("large"), Set::with_elements(spec, elements));
}

#[test]
fn subscriptions_pause_during_large_writes_and_miss_nothing() {
    const COUNT: u32 = 5_000;
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut events = RulesetEvents::listen(NAME, &socket).unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            loop {
                match events.wait(|event| _ = sender.send(Some(event))) {
                    Ok(()) => {}
                    Err(Error::Overrun { .. }) => _ = sender.send(None),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut table = DesiredTable::new(TableFamily::Inet, NAME);
        fill(&mut table, 0, COUNT);
        nf_tables::commit(&mut socket, &mut table).unwrap();
        let reported = receiver.recv_timeout(Duration::from_millis(300));
        assert!(reported.is_err(), "our own large write: {reported:?}");
        run("nft add table inet another");
        let event = receiver.recv_timeout(Duration::from_secs(5)).expect("the pause has ended");
        assert_eq!(event.expect("an event").process_name, "nft");
        // Another process commits while a large set is written: it is reported, or lost events are.
        let (mut reported, mut lost) = (0, 0);
        for round in 1..=5 {
            let change = thread::spawn(move || run(&format!("nft add chain inet another c{round}")));
            fill(&mut table, round, COUNT);
            nf_tables::commit(&mut socket, &mut table).unwrap();
            change.join().unwrap();
            match receiver.recv_timeout(Duration::from_secs(5)).expect("a change during a large write") {
                Some(_) => reported += 1,
                None => lost += 1,
            }
            // A change may be reported both ways.
            while receiver.recv_timeout(Duration::from_millis(50)).is_ok() {}
        }
        println!("{reported} changes were reported, {lost} were reported as lost");
    });
}
