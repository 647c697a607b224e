//! Base chains with the policy `drop`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use namespace::{inside, run};
use portcullis_netlink::nf_tables::{DroppingChain, Hook, TableFamily, dropping_chains, open};
use portcullis_netlink::{Family, xtables};

#[test]
fn only_chains_of_other_tables_with_the_policy_drop_are_returned() {
    inside(|| {
        let mut socket = open().unwrap().unwrap();
        let mut found = || dropping_chains(&mut socket, |table| table == "own").unwrap();
        assert_eq!(found(), []);
        for command in [
            "iptables-nft -w 60 -t filter -P FORWARD DROP",
            "iptables-nft -w 60 -t nat -N KUBE-SERVICES",
            "nft add table inet firewall",
            "nft add chain inet firewall in { type filter hook input priority -5 ; policy drop ; }",
            "nft add chain inet firewall out { type filter hook output priority 0 ; policy accept ; }",
            "nft add chain inet firewall rules",
            "nft add table ip own",
            "nft add chain ip own in { type filter hook input priority 0 ; policy drop ; }",
        ] {
            run(command);
        }
        let chain = |family, table: &str, name: &str, hook, priority| DroppingChain {
            family,
            table: table.to_owned(),
            name: name.to_owned(),
            hook: Some(hook),
            priority,
        };
        let expected = [
            chain(TableFamily::Inet, "firewall", "in", Hook::Input, -5),
            chain(TableFamily::Ip, "filter", "FORWARD", Hook::Forward, 0),
        ];
        assert_eq!(found(), expected);
        run("iptables-nft -w 60 -t filter -P FORWARD ACCEPT");
        assert_eq!(found(), expected[..1]);
    });
}

#[test]
fn policies_of_legacy_tables_are_read_without_creating_one() {
    inside(|| {
        let found = |family| {
            let chains = xtables::dropping_chains(family).unwrap().into_iter();
            chains.map(|chain| format!("{} {}", chain.table, chain.chain)).collect::<Vec<_>>()
        };
        for (family, tool) in [(Family::V4, "iptables-legacy"), (Family::V6, "ip6tables-legacy")] {
            assert_eq!(found(family), [] as [&str; 0]);
            assert_eq!(xtables::tables(family).unwrap(), [] as [&str; 0], "a read creates no table");
            run(&format!("{tool} -w 60 -P FORWARD DROP"));
            for number in 0..50 {
                run(&format!(
                    "{tool} -w 60 -A FORWARD -p tcp --dport {number} -m comment --comment x -j ACCEPT"
                ));
            }
            run(&format!("{tool} -w 60 -A INPUT -j DROP"));
            run(&format!("{tool} -w 60 -t mangle -P PREROUTING DROP"));
            run(&format!("{tool} -w 60 -t nat -N KUBE-SERVICES"));
            let mut all = found(family);
            all.sort();
            assert_eq!(all, ["filter FORWARD", "mangle PREROUTING"]);
            run(&format!("{tool} -w 60 -P FORWARD ACCEPT"));
            assert_eq!(found(family), ["mangle PREROUTING"]);
        }
    });
}
