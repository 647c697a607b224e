//! Fingerprints for drift: they change with the rules, and only then.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use namespace::{inside, run};
use portcullis_netlink::nf_tables::{ChainUse, TableFamily, generation, list_chains};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};
use portcullis_netlink::{Error, Family, xtables};

#[test]
fn the_generation_changes_with_nf_tables() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
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
        assert_eq!(generation(&mut socket).unwrap(), last, "reads and legacy iptables do not change it");
        inside(|| run("nft add table ip elsewhere"));
        assert_eq!(generation(&mut socket).unwrap(), last, "each namespace has its own");
    });
}

#[test]
fn chains_are_listed_with_their_uses() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut uses = |name: &str| {
            let mut found: Vec<ChainUse> = Vec::new();
            list_chains(&mut socket, TableFamily::Ip, |chain| found.push(chain)).unwrap();
            found.into_iter().find(|chain| chain.table == "nat" && chain.name == name).map(|chain| chain.uses)
        };
        assert_eq!(uses("KUBE-A"), None);
        for (command, expected) in [
            ("-N KUBE-A", 0),
            ("-A KUBE-A -s 192.0.2.1 -j RETURN", 1),
            ("-A KUBE-A -s 192.0.2.2 -j RETURN", 2),
            ("-A PREROUTING -j KUBE-A", 3),
            ("-D PREROUTING -j KUBE-A", 2),
            ("-F KUBE-A", 0),
        ] {
            run(&format!("iptables-nft -w 60 -t nat {command}"));
            assert_eq!(uses("KUBE-A"), Some(expected), "{command}");
        }
        run("ip6tables-nft -w 60 -t nat -N KUBE-B");
        assert_eq!(uses("KUBE-B"), None, "a chain of another family");
    });
}

#[test]
fn the_fingerprint_of_a_legacy_table_changes_with_its_rules() {
    for (family, tool) in [(Family::V4, "iptables-legacy -w 60"), (Family::V6, "ip6tables-legacy -w 60")] {
        inside(|| {
            for _ in 0..2 {
                assert_eq!(xtables::table_info(family, "nat").unwrap(), None, "a read creates no table");
                assert_eq!(xtables::tables(family).unwrap(), Vec::<String>::new());
            }
            run(&format!("{tool} -t nat -N KUBE-SERVICES"));
            assert_eq!(xtables::tables(family).unwrap(), ["nat"]);
            assert_eq!(xtables::table_info(family, "filter").unwrap(), None, "iptables created only nat");

            let mut last = xtables::table_info(family, "nat").unwrap().unwrap();
            assert_eq!(last, xtables::table_info(family, "nat").unwrap().unwrap());
            // Four built-in chains with a policy each, the error entry at the end, and two for the new chain.
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
            assert_eq!(xtables::table_info(family, "nat").unwrap(), Some(last), "a read does not change it");
        });
    }
}

#[test]
fn an_invalid_table_name_is_an_error() {
    for name in ["", "a name of more than thirty-one bytes", "a\0b"] {
        assert!(matches!(xtables::table_info(Family::V4, name), Err(Error::BadName { .. })), "{name:?}");
    }
}
