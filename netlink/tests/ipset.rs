//! ipsets of a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use namespace::{inside, run};
use portcullis_netlink::ipset::{Created, DEFAULT_MAXELEM, Destroyed, IpSets, SetEntry, SetType};
use portcullis_netlink::{Error, Family};

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const SCTP: u8 = libc::IPPROTO_SCTP as u8;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn entries(sets: &mut IpSets, name: &str) -> BTreeSet<SetEntry> {
    let mut entries = BTreeSet::new();
    let found = sets.entries(name, |entry| {
        assert!(entries.insert(entry), "{entry} comes twice");
        Ok(())
    });
    assert!(found.unwrap(), "there is a set {name}");
    entries
}

/// Returns the output of `ipset save` without the hash seeds.
fn saved(name: &str) -> Vec<String> {
    let mut lines: Vec<String> = run(&format!("ipset save {name}"))
        .lines()
        .map(|line| line.split(" initval").next().unwrap().to_owned())
        .collect();
    lines.sort();
    lines
}

#[test]
fn sets_are_listed_and_destroyed_unless_in_use() {
    inside(|| {
        run("ipset create ports bitmap:port range 0-65535");
        run("ipset create pairs hash:ip,port family inet6");
        run("ipset create other hash:ip");
        let mut sets = IpSets::open().unwrap().expect("the tool has loaded ipset");
        assert_eq!(sets.ports("ports").unwrap(), []);
        for port in [80, 65_535, 30_000] {
            run(&format!("ipset add ports {port}"));
        }
        run("ipset add pairs fd00::1,sctp:30500");
        assert_eq!(sets.ports("ports").unwrap(), [80, 30_000, 65_535]);
        assert_eq!(sets.ports("pairs").unwrap(), [30_500]);
        assert_eq!(sets.ports("none").unwrap(), []);

        run("iptables-legacy -w 60 -A INPUT -p tcp -m set --match-set ports dst -j DROP");
        assert_eq!(sets.destroy("ports").unwrap(), Destroyed::InUse);
        run("iptables-legacy -w 60 -F INPUT");
        assert_eq!(sets.destroy("ports").unwrap(), Destroyed::Yes);
        assert_eq!(sets.destroy("ports").unwrap(), Destroyed::Missing);
        assert_eq!(sets.destroy("pairs").unwrap(), Destroyed::Yes);
        assert_eq!(run("ipset list -n"), "other\n");
        assert!(matches!(sets.destroy(&"n".repeat(32)), Err(Error::BadName { most: 31, .. })));
    });
}

#[test]
fn every_port_of_a_full_set_is_read() {
    inside(|| {
        run("ipset create ports bitmap:port range 0-65535");
        run("ipset add ports 1-60000");
        let mut sets = IpSets::open().unwrap().unwrap();
        assert_eq!(sets.ports("ports").unwrap(), (1..=60_000).collect::<Vec<u16>>());
    });
}

#[test]
fn created_sets_equal_those_of_the_ipset_tool() {
    inside(|| {
        let mut sets = IpSets::open_or_load().unwrap();
        // (type, family, arguments of ipset)
        for (set_type, family, options) in [
            (SetType::HashIp, Family::V4, "family inet hashsize 1024 maxelem 65536"),
            (SetType::HashIp, Family::V6, "family inet6 hashsize 1024 maxelem 65536"),
            (SetType::HashIpPort, Family::V4, "family inet hashsize 1024 maxelem 65536"),
            (SetType::HashIpPort, Family::V6, "family inet6 hashsize 1024 maxelem 65536"),
            (SetType::HashIpPortIp, Family::V4, "family inet hashsize 1024 maxelem 65536"),
            (SetType::HashIpPortNet, Family::V6, "family inet6 hashsize 1024 maxelem 65536"),
            (SetType::BitmapPort, Family::V4, "range 0-65535"),
            (SetType::BitmapPort, Family::V6, "range 0-65535"),
        ] {
            run(&format!("ipset create theirs {set_type} {options}"));
            let created = |sets: &mut IpSets, set_type, family| {
                sets.create("ours", set_type, family, DEFAULT_MAXELEM).unwrap()
            };
            assert_eq!(created(&mut sets, set_type, family), Created::Yes);
            assert_eq!(created(&mut sets, set_type, family), Created::Existed);
            let header = sets.header("theirs").unwrap().unwrap();
            assert_eq!(sets.header("ours").unwrap().as_ref(), Some(&header));
            assert!(header.is(set_type, family));
            assert_eq!(saved("ours"), [saved("theirs")[0].replace("theirs", "ours")]);

            let other = if set_type == SetType::HashIp { SetType::HashIpPort } else { SetType::HashIp };
            assert_eq!(created(&mut sets, other, family), Created::Different);
            let other_family = if family == Family::V4 { Family::V6 } else { Family::V4 };
            let expected = if set_type.has_family() { Created::Different } else { Created::Existed };
            assert_eq!(created(&mut sets, set_type, other_family), expected);
            assert_eq!(sets.names().unwrap().into_iter().collect::<BTreeSet<_>>().len(), 2);
            run("ipset destroy");
            assert_eq!(sets.header("ours").unwrap(), None);
        }
    });
}

#[test]
fn listed_entries_equal_added_ones() {
    inside(|| {
        let mut sets = IpSets::open_or_load().unwrap();
        let pair = |address: &str, protocol, port| SetEntry::IpPort { ip: ip(address), protocol, port };
        let net = |address: &str, net: &str| SetEntry::IpPortNet {
            ip: ip(address),
            protocol: TCP,
            port: 80,
            net: net.parse().unwrap(),
        };
        let both =
            |address: &str| SetEntry::IpPortIp { ip: ip(address), protocol: UDP, port: 53, ip2: ip(address) };
        let rows = [
            (SetType::HashIp, Family::V4, vec![SetEntry::Ip(ip("10.0.0.1")), SetEntry::Ip(ip("10.0.0.2"))]),
            (SetType::HashIp, Family::V6, vec![SetEntry::Ip(ip("fd00::1"))]),
            (
                SetType::HashIpPort,
                Family::V4,
                vec![
                    pair("10.0.0.1", TCP, 443),
                    pair("10.0.0.1", UDP, 443),
                    pair("10.0.0.1", SCTP, 443),
                    pair("255.255.255.255", TCP, 65_535),
                ],
            ),
            (SetType::HashIpPort, Family::V6, vec![pair("fd00::1", SCTP, 1), pair("fd00::1", TCP, 1)]),
            (SetType::HashIpPortIp, Family::V4, vec![both("10.1.0.1"), both("10.1.0.2")]),
            (SetType::HashIpPortIp, Family::V6, vec![both("fd00::1")]),
            (
                SetType::HashIpPortNet,
                Family::V4,
                vec![
                    net("10.0.0.1", "192.0.2.7/32"),
                    net("10.0.0.1", "192.0.2.0/24"),
                    net("10.0.0.1", "128.0.0.0/1"),
                ],
            ),
            (
                SetType::HashIpPortNet,
                Family::V6,
                vec![net("fd00::1", "fd01::/64"), net("fd00::1", "fd01::1/128")],
            ),
            (
                SetType::BitmapPort,
                Family::V4,
                vec![SetEntry::Port(0), SetEntry::Port(30_080), SetEntry::Port(65_535)],
            ),
        ];
        for (set_type, family, all) in rows {
            assert_eq!(sets.create("set", set_type, family, DEFAULT_MAXELEM).unwrap(), Created::Yes);
            sets.change("set", all.iter().copied(), all.iter().copied()).unwrap();
            sets.change("set", all.iter().copied(), []).expect("what is there may be added");
            assert_eq!(entries(&mut sets, "set"), all.iter().copied().collect());
            let mut lines: Vec<String> = all.iter().map(|entry| format!("add set {entry}")).collect();
            lines.sort();
            assert_eq!(saved("set")[..lines.len()], lines, "they print as the tool prints them");
            assert_eq!(sets.header("set").unwrap().unwrap().elements, Some(all.len() as u32));

            sets.change("set", [], all[..1].iter().copied()).unwrap();
            sets.change("set", [], all[..1].iter().copied()).expect("what is gone may be deleted");
            assert_eq!(entries(&mut sets, "set"), all[1..].iter().copied().collect());
            sets.flush("set").unwrap();
            assert_eq!(entries(&mut sets, "set"), BTreeSet::new());
            assert_eq!(sets.destroy("set").unwrap(), Destroyed::Yes);
        }
    });
}

#[test]
fn sixty_thousand_entries_are_added_and_deleted() {
    inside(|| {
        let mut sets = IpSets::open_or_load().unwrap();
        let numbered = |number: u32| SetEntry::IpPortIp {
            ip: Ipv6Addr::from(0xfd00 << 112 | u128::from(number)).into(),
            protocol: TCP,
            port: number as u16,
            ip2: Ipv6Addr::LOCALHOST.into(),
        };
        sets.create("set", SetType::HashIpPortIp, Family::V6, DEFAULT_MAXELEM).unwrap();
        sets.change("set", (0..60_000).map(numbered), []).unwrap();
        assert_eq!(entries(&mut sets, "set"), (0..60_000).map(numbered).collect());
        sets.change("set", (60_000..60_010).map(numbered), (10..60_000).map(numbered)).unwrap();
        assert_eq!(entries(&mut sets, "set"), (0..10).chain(60_000..60_010).map(numbered).collect());
    });
}

#[test]
fn a_rejection_names_the_entry() {
    inside(|| {
        let mut sets = IpSets::open_or_load().unwrap();
        let numbered =
            |number: u32| SetEntry::IpPort { ip: Ipv4Addr::from(number).into(), protocol: TCP, port: 80 };
        let v6 = SetEntry::IpPort { ip: ip("fd00::1"), protocol: TCP, port: 80 };
        sets.create("pairs", SetType::HashIpPort, Family::V4, 2000).unwrap();

        // Valid entries precede and follow it, in the same message and in others.
        let adds = (1..1000).map(numbered).chain([v6]).chain((1000..1500).map(numbered));
        let error = sets.change("pairs", adds, []).unwrap_err();
        let Error::Set { set, entry, .. } = &error else { panic!("{error:?}") };
        assert_eq!((set.as_str(), *entry), ("pairs", Some(v6)));
        assert!(error.to_string().contains("another family or type than the set"), "{error}");

        let error = sets.change("pairs", (1..100_000).map(numbered), []).unwrap_err();
        assert!(matches!(error, Error::Set { entry: Some(_), .. }), "{error:?}");
        assert!(error.to_string().contains("the set is full"), "{error}");
        // The socket remains usable.
        sets.flush("pairs").unwrap();
        sets.change("pairs", (1..10).map(numbered), []).unwrap();
        assert_eq!(entries(&mut sets, "pairs").len(), 9);

        let error = sets.change("none", [numbered(1)], []).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(matches!(error, Error::Set { entry: None, .. }), "{error:?}");
        assert!(!sets.entries("none", |_| Ok(())).unwrap());
        assert_eq!(sets.flush("none").unwrap_err().errno(), Some(libc::ENOENT));
    });
}

#[test]
fn sets_are_swapped_and_renamed() {
    inside(|| {
        let mut sets = IpSets::open_or_load().unwrap();
        for (name, address) in [("one", "10.0.0.1"), ("other", "10.0.0.2")] {
            sets.create(name, SetType::HashIp, Family::V4, DEFAULT_MAXELEM).unwrap();
            sets.change(name, [SetEntry::Ip(ip(address))], []).unwrap();
        }
        run("iptables-legacy -w 60 -A INPUT -m set --match-set one src -j DROP");
        assert_eq!(sets.header("one").unwrap().unwrap().references, 1);
        sets.swap("one", "other").unwrap();
        assert_eq!(entries(&mut sets, "one"), [SetEntry::Ip(ip("10.0.0.2"))].into());
        assert_eq!(sets.header("one").unwrap().unwrap().references, 1);
        sets.rename("other", "third").unwrap();
        assert_eq!(entries(&mut sets, "third"), [SetEntry::Ip(ip("10.0.0.1"))].into());

        sets.create("ports", SetType::BitmapPort, Family::V4, DEFAULT_MAXELEM).unwrap();
        let error = sets.swap("one", "ports").unwrap_err();
        assert!(error.to_string().contains("different types"), "{error}");
        let error = sets.rename("one", "new").unwrap_err();
        assert!(error.to_string().contains("refer to it"), "{error}");
        let error = sets.rename("third", "ports").unwrap_err();
        assert!(error.to_string().contains("that of another set"), "{error}");
        run("iptables-legacy -w 60 -F INPUT");
    });
}

#[test]
fn a_full_set_is_enlarged_while_rules_use_it() {
    inside(|| {
        let mut sets = IpSets::open_or_load().unwrap();
        let of = |n: u32| SetEntry::Ip(Ipv4Addr::from(0x0a60_0000 + n).into());
        let (name, kind, family) = ("KUBE-IPVS-IPS", SetType::HashIp, Family::V4);
        assert_eq!(sets.create(name, kind, family, 1000).unwrap(), Created::Yes);
        run(&format!("iptables-legacy -w 60 -A INPUT -m set --match-set {name} dst -j DROP"));
        sets.change(name, (0..1000).map(of), []).unwrap();
        let error = sets.change(name, [of(1000)], []).unwrap_err();
        assert!(error.is_set_full(), "{error}");
        sets.enlarge(name, kind, family, 2000).unwrap();
        sets.change(name, (1000..2000).map(of), []).unwrap();
        assert_eq!(entries(&mut sets, name), (0..2000).map(of).collect());
        let header = sets.header(name).unwrap().unwrap();
        assert_eq!((header.maxelem, header.references), (Some(2000), 1), "the rule matches against it still");
        assert_eq!(sets.names().unwrap(), [name], "the temporary set is destroyed");
        assert!(!Error::NoResponse { action: "wait" }.is_set_full());
    });
}
