//! Generic netlink families of a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::path::Path;

use namespace::inside;
use portcullis_netlink::generic::loaded_family;
use portcullis_netlink::ip_vs::IpVs;
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

#[test]
fn families_are_found_by_name() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Generic).unwrap();
        // The controller is listed, and has a fixed number.
        assert_eq!(loaded_family(&mut socket, "nlctrl").unwrap(), Some(16));
        assert_eq!(loaded_family(&mut socket, "no-such-family").unwrap(), None);
    });
}

#[test]
fn opening_ip_vs_does_not_load_it() {
    inside(|| {
        let loaded = || Path::new("/proc/thread-self/net/ip_vs").exists();
        let before = loaded();
        assert_eq!(IpVs::open().unwrap().is_some(), before);
        assert_eq!(loaded(), before);
    });
}
