//! Named counters in a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::net::UdpSocket;

use namespace::{inside, run};
use portcullis_netlink::Error;
use portcullis_netlink::nfacct::Counters;

#[test]
fn counters_are_created_once_and_count() {
    inside(|| {
        let mut counters = Counters::open().unwrap();
        assert!(counters.available().unwrap());
        assert_eq!(counters.list().unwrap(), []);
        assert_eq!(counters.get("first").unwrap(), None);

        for name in ["first", "second"] {
            counters.ensure(name).unwrap();
            let made = counters.get(name).unwrap().unwrap();
            assert_eq!((made.name.as_str(), made.packets, made.bytes), (name, 0, 0));
        }

        run("ip link set lo up");
        run("iptables-legacy -w 60 -A OUTPUT -d 127.0.0.9 -m nfacct --nfacct-name first");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            socket.send_to(&[0; 56], "127.0.0.9:9").unwrap();
        }
        let counted = counters.get("first").unwrap().unwrap();
        assert_eq!((counted.packets, counted.bytes), (3, 3 * (20 + 8 + 56)), "IP and UDP headers count");

        counters.ensure("first").unwrap();
        assert_eq!(counters.get("first").unwrap(), Some(counted), "ensuring keeps the counts");
        let mut names: Vec<_> = counters.list().unwrap().into_iter().map(|counter| counter.name).collect();
        names.sort();
        assert_eq!(names, ["first", "second"]);
    });
}

#[test]
fn names_the_kernel_would_cut_are_refused() {
    inside(|| {
        let mut counters = Counters::open().unwrap();
        let (longest, too_long) = ("n".repeat(31), "n".repeat(32));
        counters.ensure(&longest).unwrap();
        assert_eq!(counters.get(&longest).unwrap().unwrap().name, longest);
        for name in ["", &too_long, "a\0b"] {
            assert!(matches!(counters.ensure(name), Err(Error::BadName { most: 31, .. })), "{name:?}");
            assert!(matches!(counters.get(name), Err(Error::BadName { most: 31, .. })), "{name:?}");
        }
        assert_eq!(counters.list().unwrap().len(), 1);
    });
}
