//! Sets of addresses and ports in a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use namespace::{inside, run};
use portcullis_netlink::Error;
use portcullis_netlink::ipset::{Destroyed, IpSets};

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
