//! Tests of the cleanup: it leaves the node as it was before.

use portcullis_cluster::Family;
use portcullis_modes::cleanup::{self, CleanupResult, RemovedObject};
use portcullis_modes::iptables::Flavour;

use crate::namespace::{inside, run};
use crate::node::{FLAVOURS, Node, feed, saved, tool};

/// Rules of other programs and of a kubelet, which creates one chain that proxies create too.
const FOREIGN_RULES: &str = "\
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-ADMIN - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment \"not -j KUBE-SERVICES\" -j ACCEPT
-A FORWARD -j KUBE-ADMIN
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-ADMIN -m comment --comment KUBE-SERVICES -j RETURN
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80
COMMIT
";

const LOCALNET: &str = "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \
    \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n";

fn add_foreign_rules(flavour: Flavour, rules: &str) {
    for family in Family::BOTH {
        let rules = match family {
            Family::V4 => rules.replacen("COMMIT\n", &format!("{LOCALNET}COMMIT\n"), 1),
            Family::V6 => rules.to_owned(),
        };
        feed(&format!("{}-restore -w 60 --noflush", tool(flavour, family)), &rules);
    }
}

/// Searches for the objects of all modes, then removes them. Fails if the search changes anything, or announces something
/// else than what is removed, kept and left.
fn remove_all_modes() -> CleanupResult {
    let snapshot = || [run("nft list ruleset"), run("ip link"), run("ipset list -n"), route_localnet()];
    let before = snapshot();
    let found = cleanup::find_all_modes();
    assert_eq!(snapshot(), before, "the search changes nothing");
    let done = cleanup::remove_all_modes();
    assert_eq!(found.removed, done.removed);
    assert_eq!(found.kept, done.kept);
    let objects = |result: &CleanupResult| -> Vec<String> {
        result.not_removed.iter().map(|left| left.object.clone()).collect()
    };
    assert_eq!(objects(&found), objects(&done));
    done
}

/// Returns the total numbers of removed jumps and chains.
fn counts(done: &CleanupResult) -> (usize, usize) {
    done.removed.iter().fold((0, 0), |(all_jumps, all_chains), removed| match removed {
        RemovedObject::Iptables { jumps, chains, .. } => (all_jumps + jumps, all_chains + chains),
        _ => (all_jumps, all_chains),
    })
}

#[test]
fn rules_are_removed_and_foreign_rules_kept() {
    for flavour in FLAVOURS {
        for state in ["mixed", "lb-source-ranges", "affinity-nodeport-lb", "both-local", "large-cluster"] {
            inside(|| {
                add_foreign_rules(flavour, FOREIGN_RULES);
                let before = saved(flavour);
                Node::new(flavour, state).sync();
                assert_ne!(saved(flavour), before, "{flavour:?} {state}");
                let done = remove_all_modes();
                assert_eq!(done.not_removed, [], "{flavour:?} {state}");
                assert_eq!(saved(flavour), before, "{flavour:?} {state}");
                // KUBE-FIREWALL and its two jumps belong to the kubelet.
                assert_eq!(counts(&done).0, 2 * 12, "{flavour:?} {state}: {:?}", done.removed);
                assert_eq!(remove_all_modes(), CleanupResult::default(), "nothing is left to do");
            });
        }
    }
}

/// Either of its chains in table mangle shows that a kubelet runs.
#[test]
fn kube_firewall_is_kept_if_a_kubelet_runs() {
    let (hint, canary) = (":KUBE-IPTABLES-HINT - [0:0]\n", ":KUBE-KUBELET-CANARY - [0:0]\n");
    for flavour in FLAVOURS {
        for missing in [hint, canary] {
            inside(|| {
                add_foreign_rules(flavour, &FOREIGN_RULES.replace(missing, ""));
                let before = saved(flavour);
                Node::new(flavour, "empty").sync();
                assert_eq!(remove_all_modes().not_removed, [], "{flavour:?} without {missing}");
                assert_eq!(saved(flavour), before, "{flavour:?} without {missing}");
            });
        }
    }
}

#[test]
fn kube_firewall_is_removed_if_no_kubelet_runs() {
    for flavour in FLAVOURS {
        inside(|| {
            Node::new(flavour, "mixed").sync();
            let done = remove_all_modes();
            assert_eq!(done.not_removed, [], "{flavour:?}");
            assert!(!saved(flavour).contains("KUBE-"), "{flavour:?}: {}", saved(flavour));
            assert_eq!(counts(&done).0, 2 * 14, "{flavour:?}: {:?}", done.removed);
        });
    }
}

#[test]
fn both_flavours_are_cleaned_and_legacy_tables_are_not_created() {
    inside(|| {
        Node::new(Flavour::Nft, "mixed").sync();
        remove_all_modes();
        for family in portcullis_netlink::Family::ALL {
            assert_eq!(portcullis_netlink::xtables::tables(family).unwrap(), Vec::<String>::new());
        }
        for flavour in FLAVOURS {
            Node::new(flavour, "mixed").sync();
        }
        assert!(remove_all_modes().is_complete());
        for flavour in FLAVOURS {
            assert!(!saved(flavour).contains("KUBE-"), "{flavour:?}");
        }
    });
}

#[test]
fn chain_in_use_is_emptied_kept_and_reported() {
    for flavour in FLAVOURS {
        inside(|| {
            let tool = tool(flavour, Family::V4);
            Node::new(flavour, "mixed").sync();
            run(&format!("{tool} -w 60 -t nat -N MINE"));
            run(&format!("{tool} -w 60 -t nat -A MINE -d 192.0.2.1 -j KUBE-SERVICES"));
            let done = remove_all_modes();
            let [left] = done.not_removed.as_slice() else { panic!("{flavour:?}: {:?}", done.not_removed) };
            assert!(left.object.ends_with("table nat: chain KUBE-SERVICES"), "{left}");
            assert!(left.reason.contains("-A MINE -d 192.0.2.1/32 -j KUBE-SERVICES"), "{left}");
            let rules = saved(flavour);
            let kube: Vec<&str> = rules.lines().filter(|line| line.contains("KUBE-")).collect();
            assert_eq!(kube, [":KUBE-SERVICES -", "-A MINE -d 192.0.2.1/32 -j KUBE-SERVICES"], "{flavour:?}");

            run(&format!("{tool} -w 60 -t nat -F MINE"));
            assert!(remove_all_modes().is_complete(), "{flavour:?}");
            assert!(!saved(flavour).contains("KUBE-"), "{flavour:?}");
        });
    }
}

/// With the nft flavour, removal of more chains than one restore deletes, and of jumps in unusual directions.
#[test]
fn thousands_of_chains_are_removed() {
    const SERVICES: usize = 2_600;
    for flavour in FLAVOURS {
        inside(|| {
            let mut rules = String::from("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n");
            let lines = |line: &dyn Fn(usize) -> String| (0..SERVICES).map(line).collect::<String>();
            rules += &lines(&|n| format!(":KUBE-SEP-{n:016} - [0:0]\n"));
            rules += &lines(&|n| format!(":KUBE-SVC-{n:016} - [0:0]\n"));
            rules += "-A OUTPUT -j KUBE-SERVICES\n";
            rules += &lines(&|n| format!("-A KUBE-SEP-{n:016} -j KUBE-MARK-MASQ\n"));
            rules += &lines(&|n| {
                format!("-A KUBE-SERVICES -d 10.96.{}.{}/32 -j KUBE-SVC-{n:016}\n", n / 250, n % 250)
            });
            rules += &lines(&|n| format!("-A KUBE-SVC-{n:016} -j KUBE-SEP-{n:016}\n"));
            // Endpoint chains do not jump to Service chains; if one does, all chains must be emptied before the first
            // deletion.
            rules += "-A KUBE-SEP-0000000000000000 -j KUBE-SVC-0000000000002599\n-D KUBE-SVC-0000000000002599 1\nCOMMIT\n";
            feed(&format!("{}-restore -w 60 --noflush", tool(flavour, Family::V4)), &rules);
            let start = std::time::Instant::now();
            let done = remove_all_modes();
            println!("{flavour:?}: {} chains in {:?}", 2 * SERVICES + 2, start.elapsed());
            assert_eq!(
                (done.not_removed.as_slice(), counts(&done)),
                (&[][..], (1, 2 * SERVICES + 2)),
                "{flavour:?}"
            );
        });
    }
}

#[test]
fn tables_of_nftables_mode_are_removed_and_others_kept() {
    inside(|| {
        for table in ["ip kube-proxy", "ip6 kube-proxy", "ip portcullis", "inet firewall", "inet portcullis"]
        {
            run(&format!("nft add table {table}"));
            run(&format!("nft add chain {table} one"));
        }
        let done = remove_all_modes();
        assert_eq!(done.not_removed, []);
        let gone = ["ip kube-proxy", "ip6 kube-proxy", "ip portcullis"];
        assert_eq!(done.removed, gone.map(|table| RemovedObject::NftTable(table.to_owned())));
        assert_eq!(run("nft list tables"), "table inet firewall\ntable inet portcullis\n");
    });
}

/// A part of the rules and sets recorded from kube-proxy in IPVS mode. This kernel has neither ip_vs nor dummy
/// interfaces; a veth link replaces the dummy.
#[test]
fn sets_rules_and_link_of_ipvs_mode_are_removed() {
    const SETS: &str = "\
create KUBE-CLUSTER-IP hash:ip,port family inet
add KUBE-CLUSTER-IP 10.96.0.1,tcp:443
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30080
create KUBE-LOOP-BACK hash:ip,port,ip family inet
create KUBE-IPVS-IPS hash:ip family inet
create KUBE-6-LOAD-BALANCER-SOURCE-CID hash:ip,port,net family inet6
create MINE hash:ip family inet
";
    const RULES: &str = "\
*filter
:KUBE-IPVS-FILTER - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
-A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check rules\" -j KUBE-NODE-PORT
-A INPUT -m set --match-set MINE src -j DROP
-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set KUBE-IPVS-IPS dst -j REJECT --reject-with icmp-port-unreachable
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
COMMIT
*nat
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODE-PORT -p tcp -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
COMMIT
";
    for flavour in FLAVOURS {
        inside(|| {
            feed("ipset restore", SETS);
            feed(&format!("{}-restore -w 60 --noflush", tool(flavour, Family::V4)), RULES);
            run("ip link add kube-ipvs0 type bridge");
            run("ip addr add 10.96.0.1/32 dev kube-ipvs0");
            let done = remove_all_modes();
            assert_eq!(done.not_removed, [], "{flavour:?}");
            assert_eq!(counts(&done), (5, 9), "{flavour:?}");
            let rules = saved(flavour);
            assert!(!rules.contains("KUBE-") && rules.contains("--match-set MINE"), "{flavour:?}: {rules}");
            assert_eq!(run("ipset list -n"), "MINE\n", "{flavour:?}");
            assert!(!run("ip link").contains("kube-ipvs0"), "{flavour:?}");
            assert!(done.removed.contains(&RemovedObject::Link("kube-ipvs0".to_owned())));
            assert!(!done.removed.iter().any(|removed| matches!(removed, RemovedObject::VirtualServers(_))));
        });
    }
}

#[test]
fn set_in_use_is_reported() {
    inside(|| {
        run("ipset create KUBE-CLUSTER-IP hash:ip,port");
        run("iptables-legacy -w 60 -A INPUT -m set --match-set KUBE-CLUSTER-IP dst,dst -j DROP");
        let done = remove_all_modes();
        let [left] = done.not_removed.as_slice() else { panic!("{:?}", done.not_removed) };
        assert_eq!(left.object, "ipset KUBE-CLUSTER-IP");
        assert_eq!(run("ipset list -n"), "KUBE-CLUSTER-IP\n");
    });
}

/// Runs a test in a namespace that accepts packets to loopback addresses from other hosts on these interfaces.
fn with_route_localnet(interfaces: &[&str], test: impl FnOnce() + Send) {
    inside(|| {
        run("ip link add cni0 type veth peer name other0");
        interfaces.iter().for_each(|interface| set_route_localnet(interface, "1"));
        test();
    });
}

fn set_route_localnet(interface: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet"), value).unwrap();
}

fn route_localnet() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet").unwrap().trim().to_owned()
}

const GUARD: &str = "table ip portcullis-loopback\n";

#[test]
fn route_localnet_is_reset_with_the_rules_that_protect_loopback() {
    for flavour in FLAVOURS {
        with_route_localnet(&["all"], || {
            Node::new(flavour, "mixed").sync();
            let done = remove_all_modes();
            assert!(done.removed.contains(&RemovedObject::RouteLocalnet), "{flavour:?}: {:?}", done.removed);
            assert_eq!((done.not_removed, done.kept), (vec![], vec![]), "{flavour:?}");
            assert_eq!(route_localnet(), "0", "{flavour:?}");
            assert_eq!(remove_all_modes(), CleanupResult::default(), "{flavour:?}: nothing is left to do");
            assert!(!run("nft list tables").contains(GUARD), "{flavour:?}");
        });
    }
}

#[test]
fn loopback_stays_protected_while_route_localnet_is_set_on_an_interface() {
    with_route_localnet(&["all", "cni0"], || {
        run("nft add table ip portcullis");
        let done = remove_all_modes();
        assert_eq!(
            done.removed,
            [RemovedObject::NftTable("ip portcullis".into()), RemovedObject::RouteLocalnet]
        );
        assert_eq!((done.not_removed.len(), done.kept.len()), (0, 1));
        assert!(done.kept[0].reason.contains("net.ipv4.conf.cni0.route_localnet"), "{}", done.kept[0]);
        assert_eq!(run("nft list tables"), GUARD);
        let again = remove_all_modes();
        assert_eq!((again.removed.len(), again.kept), (0, done.kept), "it is still set");
        set_route_localnet("cni0", "0");
        let table = RemovedObject::NftTable("ip portcullis-loopback".into());
        assert_eq!(remove_all_modes().removed, [table], "and now it is not");
    });
}

#[test]
fn route_localnet_is_kept_if_a_rule_of_other_software_needs_it() {
    for flavour in FLAVOURS {
        with_route_localnet(&["all"], || {
            Node::new(flavour, "mixed").sync();
            let rule = "-A PREROUTING -d 169.254.169.254/32 -p tcp -j DNAT --to-destination 127.0.0.1:8181";
            feed(
                &format!("{}-restore -w 60 --noflush", tool(flavour, Family::V4)),
                &format!("*nat\n{rule}\nCOMMIT\n"),
            );
            let done = remove_all_modes();
            assert_eq!(route_localnet(), "1", "{flavour:?}");
            let kept: Vec<String> = done.kept.iter().map(ToString::to_string).collect();
            assert!(kept.iter().any(|kept| kept.contains("--to-destination 127.0.0.1:8181")), "{kept:?}");
            assert!(run("nft list tables").contains(GUARD), "{flavour:?}: {kept:?}");
        });
    }
}

#[test]
fn route_localnet_of_a_node_without_a_proxy_is_not_changed() {
    with_route_localnet(&["all", "cni0"], || {
        assert_eq!(remove_all_modes(), CleanupResult::default());
        assert_eq!((route_localnet().as_str(), run("nft list tables").as_str()), ("1", ""));
    });
}
