//! The cheap drift checks: they move when somebody changes the rules, and only then.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use namespace::{inside, run};
use portcullis_netlink::nf_tables::generation;
use portcullis_netlink::socket::{Protocol, Socket};
use portcullis_netlink::{Error, Family, xtables};

#[test]
fn the_generation_moves_with_nf_tables() {
    inside(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut last = generation(&mut socket).unwrap();
        for command in [
            "nft add table ip services",
            "nft add chain ip services one",
            "nft add rule ip services one accept",
            "nft flush chain ip services one",
            "iptables-nft -w 60 -t nat -N KUBE-SERVICES",
            "iptables-nft -w 60 -t nat -X KUBE-SERVICES",
        ] {
            run(command);
            let now = generation(&mut socket).unwrap();
            assert_ne!(now, last, "{command}");
            last = now;
        }
        run("nft list ruleset");
        run("iptables-legacy -w 60 -t nat -N KUBE-SERVICES");
        assert_eq!(generation(&mut socket).unwrap(), last, "reading and legacy iptables leave it alone");
        inside(|| run("nft add table ip elsewhere"));
        assert_eq!(generation(&mut socket).unwrap(), last, "each namespace has its own");
    });
}

#[test]
fn a_legacy_tables_fingerprint_moves_with_its_rules() {
    for (family, tool) in [(Family::V4, "iptables-legacy -w 60"), (Family::V6, "ip6tables-legacy -w 60")] {
        inside(|| {
            for _ in 0..2 {
                assert_eq!(xtables::table_info(family, "nat").unwrap(), None, "asking makes no table");
                assert_eq!(xtables::tables(family).unwrap(), Vec::<String>::new());
            }
            run(&format!("{tool} -t nat -N KUBE-SERVICES"));
            assert_eq!(xtables::tables(family).unwrap(), ["nat"]);
            assert_eq!(xtables::table_info(family, "filter").unwrap(), None, "the tool made only nat");

            let mut last = xtables::table_info(family, "nat").unwrap().unwrap();
            assert_eq!(last, xtables::table_info(family, "nat").unwrap().unwrap());
            // Four built-in chains of a policy each, the error end, and two for the new chain.
            assert_eq!(last.entries, 7);
            for change in [
                "-A PREROUTING -j KUBE-SERVICES",
                "-A KUBE-SERVICES -j RETURN",
                "-F KUBE-SERVICES",
                "-F PREROUTING",
                "-X KUBE-SERVICES",
            ] {
                run(&format!("{tool} -t nat {change}"));
                let now = xtables::table_info(family, "nat").unwrap().unwrap();
                assert_ne!(now, last, "{change}");
                last = now;
            }
            run(&format!("{tool} -t nat -S"));
            assert_eq!(xtables::table_info(family, "nat").unwrap(), Some(last), "reading leaves it alone");
        });
    }
}

#[test]
fn a_name_that_is_no_tables_is_an_error() {
    for name in ["", "a name of more than thirty-one bytes", "a\0b"] {
        assert!(matches!(xtables::table_info(Family::V4, name), Err(Error::BadName { .. })), "{name:?}");
    }
}
