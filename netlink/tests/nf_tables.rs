//! Tables of nf_tables in a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use namespace::{inside, run};
use portcullis_netlink::nf_tables::{TableFamily, delete_table};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

#[test]
fn a_table_goes_with_all_in_it_and_others_stay() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let families = [TableFamily::Ip, TableFamily::Ip6, TableFamily::Inet];
        for family in families {
            let family = family.as_str();
            run(&format!("nft add table {family} kube-proxy"));
            run(&format!("nft add chain {family} kube-proxy one"));
            run(&format!("nft add chain {family} kube-proxy two"));
            run(&format!("nft add rule {family} kube-proxy one jump two"));
            run(&format!("nft add table {family} other"));
        }
        for (gone, family) in families.into_iter().enumerate() {
            assert!(delete_table(&mut socket, family, "kube-proxy").unwrap(), "{family:?}");
            assert!(!delete_table(&mut socket, family, "kube-proxy").unwrap(), "{family:?}: it is gone");
            let listed = run("nft list tables");
            assert_eq!(listed.matches("kube-proxy").count(), families.len() - 1 - gone, "{listed}");
            assert_eq!(listed.matches("other").count(), families.len(), "{listed}");
        }
    });
}
