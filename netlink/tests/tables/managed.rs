//! A table that is kept as wanted.

use portcullis_netlink::Error;
use portcullis_netlink::nf_tables::{
    self, Chain, ChangeCounts, DataType, DesiredTable, Element, Key, Rule, Set, SetSpec, TableFamily, Verdict,
};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use crate::namespace::{inside, run};
use crate::round_trip::write;
use crate::sample::{NAME, key, name, sample};

/// What is done to a table.
type Edit = Box<dyn Fn(&mut DesiredTable)>;

fn matches_kernel(managed: &DesiredTable, socket: &mut Socket) {
    let (read, foreign) = nf_tables::read(socket, TableFamily::Inet, NAME).unwrap().unwrap();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(read.to_string(), managed.desired().to_string());
}

#[test]
fn edits_change_only_what_they_touch() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        let peers = name("peers");
        let steps: Vec<(&str, Edit, ChangeCounts)> = vec![
            ("nothing", Box::new(|_| ()), ChangeCounts::default()),
            (
                "an element comes",
                Box::new(|m| m.put_element(&name("peers"), key("10.0.0.9"), Element::new())),
                ChangeCounts { elements: 1, ..ChangeCounts::default() },
            ),
            (
                "one that comes and goes",
                Box::new(|m| {
                    m.put_element(&name("peers"), key("10.0.0.8"), Element::new());
                    m.remove_element(&name("peers"), &key("10.0.0.8"));
                }),
                ChangeCounts::default(),
            ),
            (
                "an element goes",
                Box::new(|m| m.remove_element(&name("peers"), &key("10.0.0.9"))),
                ChangeCounts { elements: 1, ..ChangeCounts::default() },
            ),
            (
                "a pod gets another chain, which is new",
                Box::new(|m| {
                    m.put_chain(&name("other"), Chain::new(vec![Rule::new().then(Verdict::Drop)]));
                    m.put_element(&name("pods"), key("10.0.0.5"), Element::verdict(Verdict::goto("other")));
                }),
                ChangeCounts { chains: 1, elements: 1, ..ChangeCounts::default() },
            ),
            (
                "and loses it",
                Box::new(|m| {
                    m.remove_element(&name("pods"), &key("10.0.0.5"));
                    m.remove_chain("other");
                }),
                ChangeCounts { chains: 1, elements: 1, ..ChangeCounts::default() },
            ),
            (
                "a set with its rule",
                Box::new(|m| {
                    let set = Set::with_elements(
                        SetSpec::new(&[DataType::Ipv4Addr]).with_intervals(),
                        [(key("10.9.0.0"), Element::range_to(key("10.9.0.7")))],
                    );
                    m.put_set(&name("new"), set);
                    let rule = Rule::new().family(portcullis_netlink::Family::V4);
                    let field = nf_tables::Field::Source(portcullis_netlink::Family::V4);
                    let rule = rule.is_in(&[field], "new").then(Verdict::Drop);
                    m.put_chain(&name("uses"), Chain::new(vec![rule]));
                    m.put_counter(&name("more"), None);
                }),
                ChangeCounts { chains: 1, sets: 1, counters: 1, ..ChangeCounts::default() },
            ),
            (
                "all of it goes, in the wrong order",
                Box::new(|m| {
                    m.remove_set("new");
                    m.remove_counter("more");
                    m.remove_chain("uses");
                }),
                ChangeCounts { chains: 1, sets: 1, counters: 1, ..ChangeCounts::default() },
            ),
            (
                "a set goes and comes back with something else in it",
                Box::new(|m| {
                    let mut set = m.desired().sets["peers6"].clone();
                    m.remove_set("peers6");
                    set.elements.insert(key("fd00::2"), Element::new());
                    m.put_set(&name("peers6"), set);
                }),
                ChangeCounts { elements: 1, ..ChangeCounts::default() },
            ),
        ];
        for (step, edit, expected) in steps {
            edit(&mut managed);
            let committed = nf_tables::commit(&mut socket, &mut managed)
                .unwrap_or_else(|error| panic!("{step}: {error}"));
            assert_eq!(committed.changes, expected, "{step}");
            assert!(!committed.full && !committed.replaced, "{step}");
            matches_kernel(&managed, &mut socket);
        }
        assert!(managed.desired().sets.contains_key(&peers));
    });
}

#[test]
fn external_changes_are_detected_and_restored() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        let changes: &[&str] = &[
            "nft flush ruleset",
            &format!("nft delete element inet {NAME} peers {{ 10.0.0.1 }}"),
            &format!("nft add element inet {NAME} peers {{ 10.0.0.77 }}"),
            &format!("nft add rule inet {NAME} profile accept"),
            &format!("nft insert rule inet {NAME} lb drop"),
            &format!("nft flush chain inet {NAME} forward"),
            &format!("nft add chain inet {NAME} theirs"),
            &format!("nft add set inet {NAME} theirs {{ type ether_addr; }}"),
            &format!("nft add element inet {NAME} blocks {{ 192.0.2.0/24 }}"),
            &format!("nft insert rule inet {NAME} lb jump {{ counter ; }}"),
            &format!("nft insert rule inet {NAME} forward ip saddr vmap {{ 10.1.1.1 : drop }} quota 9 bytes"),
            &format!("nft add element inet {NAME} pods {{ * : drop }}"),
            &format!("nft add element inet {NAME} peers {{ * }}"),
            &format!("nft add element inet {NAME} sources {{ * }}"),
            &format!("nft add element inet {NAME} affinity {{ * }}"),
            &format!("nft add table inet {NAME} {{ flags dormant ; }}"),
            &format!("nft add chain inet {NAME} forward {{ policy drop ; }}"),
            &format!(
                "nft delete chain inet {NAME} dispatch ; \
                 add chain inet {NAME} dispatch {{ type nat hook prerouting priority -77 ; }}"
            ),
            &format!(
                "nft add chain inet {NAME} theirs ; add rule inet {NAME} theirs jump profile ; \
                 add element inet {NAME} pods {{ 10.0.0.77 : goto theirs }}"
            ),
            &format!("nft add chain inet {NAME} theirs {{ type route hook output priority 0 ; }}"),
            &format!("nft add quota inet {NAME} theirs over 10 mbytes"),
            &format!("nft add counter inet {NAME} theirs"),
            &format!(
                "nft add map inet {NAME} theirs {{ type ipv4_addr : verdict ; \
                 elements = {{ 10.1.1.1 : jump profile }} ; }}"
            ),
            &format!("nft add set inet {NAME} theirs {{ type ipv4_addr ; flags dynamic ; counter ; }}"),
        ];
        for change in changes {
            run(change);
            assert!(!nf_tables::compare(&mut socket, &managed).unwrap().is_empty(), "{change}");
            managed.invalidate();
            let committed = nf_tables::commit(&mut socket, &mut managed)
                .unwrap_or_else(|error| panic!("{change}: {error}"));
            assert!(committed.full && !committed.changes.is_empty(), "{change}: {committed:?}");
            matches_kernel(&managed, &mut socket);
            assert!(nf_tables::compare(&mut socket, &managed).unwrap().is_empty(), "{change}");
        }
    });
}

#[test]
fn a_set_of_another_type_recreates_the_table_in_one_transaction() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        let spec = SetSpec::new(&[DataType::Ipv4Addr]).with_intervals();
        managed.put_set(
            &name("peers"),
            Set::with_elements(spec, [(key("10.0.0.0"), Element::range_to(key("10.0.0.3")))]),
        );
        assert!(nf_tables::commit(&mut socket, &mut managed).unwrap().replaced);
        matches_kernel(&managed, &mut socket);
    });
}

/// A chain of another process refers to one that is to be deleted: the edits alone are rejected, and so is the difference
/// that leaves the unknown map where it is.
#[test]
fn content_of_another_process_rejects_no_commit() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        managed.put_chain(&name("mine"), Chain::new(vec![Rule::new().then(Verdict::Accept)]));
        nf_tables::commit(&mut socket, &mut managed).unwrap();
        let holds = [
            format!("nft add chain inet {NAME} theirs ; add rule inet {NAME} theirs jump mine"),
            format!("nft add element inet {NAME} pods {{ * : goto mine }}"),
            format!("nft insert rule inet {NAME} lb ip saddr vmap {{ 10.1.1.1 : jump mine }}"),
        ];
        for hold in holds {
            managed.put_chain(&name("mine"), Chain::new(vec![Rule::new().then(Verdict::Accept)]));
            nf_tables::commit(&mut socket, &mut managed).unwrap();
            run(&hold);
            managed.remove_chain("mine");
            let committed = nf_tables::commit(&mut socket, &mut managed)
                .unwrap_or_else(|error| panic!("{hold}: {error}"));
            assert!(committed.full, "{hold}: {committed:?}");
            matches_kernel(&managed, &mut socket);
            assert!(nf_tables::compare(&mut socket, &managed).unwrap().is_empty(), "{hold}");
        }
        // Neither does it decide what the kernel is said to reject.
        run(&format!("nft insert rule inet {NAME} lb jump {{ counter ; }}"));
        managed.invalidate();
        nf_tables::check_edits(&mut socket, &managed).unwrap();
        managed.put_element(&name("pods"), key("10.0.0.9"), Element::verdict(Verdict::goto("nowhere")));
        let error = nf_tables::check_edits(&mut socket, &managed).unwrap_err();
        assert!(error.to_string().starts_with("element 10.0.0.9 of set pods:"), "{error}");
    });
}

#[test]
fn unknown_elements_are_replaced_and_the_table_stays() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        run(&format!("nft add element inet {NAME} affinity {{ 10.0.0.1 . 10.0.0.2 . 80 }}"));
        run(&format!("nft add element inet {NAME} pods {{ * : drop }}"));
        let (read, foreign) = nf_tables::read(&mut socket, TableFamily::Inet, NAME).unwrap().unwrap();
        assert_eq!((foreign.len(), &read.sets["pods"].unknown[..]), (0, &["*".to_owned()][..]));
        managed.invalidate();
        let committed = nf_tables::commit(&mut socket, &mut managed).unwrap();
        assert!(committed.changes.elements == 1 && !committed.replaced, "{committed:?}");
        matches_kernel(&managed, &mut socket);
        let clients = run(&format!("nft list set inet {NAME} affinity"));
        assert!(clients.contains("10.0.0.1 . 10.0.0.2 . 80"), "session affinity stays: {clients}");
    });
}

#[test]
fn a_rejection_names_the_object_and_changes_nothing() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        let before = nf_tables::read(&mut socket, TableFamily::Inet, NAME).unwrap();
        let rows: Vec<(&str, Edit, Edit)> = vec![
            (
                "a rule of chain uses (says why)",
                Box::new(|m| {
                    let rule = Rule::new().then(Verdict::jump("nowhere")).with_comment("says why");
                    m.put_chain(&name("uses"), Chain::new(vec![rule]));
                    m.put_element(&name("peers"), key("10.0.0.9"), Element::new());
                }),
                Box::new(|m| {
                    m.remove_chain("uses");
                    m.remove_element(&name("peers"), &key("10.0.0.9"));
                }),
            ),
            (
                "element 10.0.0.200 of set pods",
                Box::new(|m| {
                    for last in 100..=255u8 {
                        let verdict =
                            if last == 200 { Verdict::goto("nowhere") } else { Verdict::goto("profile") };
                        m.put_element(
                            &name("pods"),
                            key(&format!("10.0.0.{last}")),
                            Element::verdict(verdict),
                        );
                    }
                }),
                Box::new(|m| {
                    for last in 100..=255u8 {
                        m.remove_element(&name("pods"), &key(&format!("10.0.0.{last}")));
                    }
                }),
            ),
        ];
        for (object, edit, undo) in rows {
            edit(&mut managed);
            let error = nf_tables::commit(&mut socket, &mut managed).unwrap_err();
            assert!(matches!(&error, Error::Object { object: named, .. } if named == object), "{error}");
            assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
            assert_eq!(nf_tables::read(&mut socket, TableFamily::Inet, NAME).unwrap(), before, "{object}");
            undo(&mut managed);
            nf_tables::commit(&mut socket, &mut managed).unwrap();
            matches_kernel(&managed, &mut socket);
        }
    });
}

/// More than a socket's default buffer holds, and more rejections than its receive buffer holds.
#[test]
fn a_batch_of_any_size_is_sent_and_many_rejections_are_one_error() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = DesiredTable::new(TableFamily::Inet, NAME);
        let drop = || Element::verdict(Verdict::Drop);
        let many = (0..200_000u128).map(|n| (Key::new().part(&n.to_be_bytes()), drop()));
        // With its size known, the kernel makes room at once; else it may move elements while we read them.
        let spec = SetSpec { size: Some(200_000), ..SetSpec::verdict_map(&[DataType::Ipv6Addr]) };
        managed.put_set(&name("many"), Set::with_elements(spec, many));
        let committed = nf_tables::commit(&mut socket, &mut managed).unwrap();
        assert!(committed.bytes > 8 << 20, "{committed:?}");
        assert_eq!(nf_tables::compare(&mut socket, &managed).unwrap(), ChangeCounts::default());
        let rules = vec![Rule::new().then(Verdict::jump("nowhere")); 20_000];
        managed.put_chain(&name("uses"), Chain::new(rules));
        let error = nf_tables::commit(&mut socket, &mut managed).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
        assert!(error.to_string().starts_with("a rule of chain uses:"), "{error}");
        managed.remove_chain("uses");
        nf_tables::commit(&mut socket, &mut managed).unwrap();
        assert!(nf_tables::compare(&mut socket, &managed).unwrap().is_empty());
    });
}

#[test]
fn large_new_sets_are_written_in_parts_before_their_rules() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        let address = |n: u32| Key::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n)));
        let elements = (0..10_000).map(|n| (address(n), Element::new()));
        managed.put_set(&name("large"), Set::with_elements(SetSpec::new(&[DataType::Ipv4Addr]), elements));
        let field = nf_tables::Field::Source(portcullis_netlink::Family::V4);
        let rule = Rule::new().family(portcullis_netlink::Family::V4).is_in(&[field], "large");
        managed.put_chain(&name("uses"), Chain::new(vec![rule.then(Verdict::Drop)]));
        let before = nf_tables::generation(&mut socket).unwrap();
        let committed = nf_tables::commit(&mut socket, &mut managed).unwrap();
        let transactions = nf_tables::generation(&mut socket).unwrap() - before;
        assert!((2..10).contains(&transactions), "{transactions} transactions for {} bytes", committed.bytes);
        matches_kernel(&managed, &mut socket);
    });
}

#[test]
fn rules_may_change_before_elements_are_removed() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = DesiredTable::new(TableFamily::Ip, NAME);
        managed.rules_before_elements();
        let tries = |sets: &[&str]| {
            let destination = [nf_tables::Field::Destination(portcullis_netlink::Family::V4)];
            let rule = |set: &&str| Rule::new().is_in(&destination, *set).then(Verdict::Drop);
            Chain::new(sets.iter().map(rule).collect())
        };
        let set = || Set::new(SetSpec::new(&[DataType::Ipv4Addr]));
        let (one, two, three) = (name("one"), name("two"), name("three"));
        managed.put_set(&one, set());
        managed.put_element(&one, key("10.0.0.1"), Element::new());
        managed.put_chain(&name("tries"), tries(&["one"]));
        nf_tables::commit(&mut socket, &mut managed).unwrap();

        let mut transactions = |managed: &mut DesiredTable| {
            let before = nf_tables::generation(&mut socket).unwrap();
            let done = nf_tables::commit(&mut socket, managed).map(drop);
            (done, nf_tables::generation(&mut socket).unwrap() - before)
        };
        managed.put_set(&two, set());
        managed.put_chain(&name("tries"), tries(&["one", "two"]));
        managed.remove_element(&one, &key("10.0.0.1"));
        managed.put_element(&two, key("10.0.0.1"), Element::new());
        let (done, count) = transactions(&mut managed);
        assert!(done.is_ok() && count == 2, "{done:?} by {count} transactions");
        managed.remove_element(&two, &key("10.0.0.1"));
        managed.put_element(&one, key("10.0.0.1"), Element::new());
        assert_eq!(transactions(&mut managed).1, 1, "all rules are there");

        // The second transaction is rejected, as the element that it deletes is gone: the table is compared with the kernel,
        // and nothing is left to do.
        run(&format!("nft delete element ip {NAME} one {{ 10.0.0.1 }}"));
        managed.put_set(&three, set());
        managed.put_chain(&name("tries"), tries(&["one", "two", "three"]));
        managed.remove_element(&one, &key("10.0.0.1"));
        managed.put_element(&three, key("10.0.0.1"), Element::new());
        let (done, count) = transactions(&mut managed);
        assert!(done.is_ok() && count == 1, "{done:?} by {count} transactions");
        let (read, _) = nf_tables::read(&mut socket, TableFamily::Ip, NAME).unwrap().unwrap();
        assert_eq!(read.to_string(), managed.desired().to_string());
    });
}

#[test]
fn ranges_may_be_written_before_other_elements() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = DesiredTable::new(TableFamily::Ip, NAME);
        managed.ranges_before_elements();
        let (checked, sources) = (name("checked"), name("sources"));
        let parts = [DataType::InetService, DataType::Ipv4Addr];
        managed.put_set(&checked, Set::new(SetSpec::new(&parts[..1])));
        managed.put_set(&sources, Set::new(SetSpec::new(&parts).with_intervals()));
        let port = || Key::new().port(80);
        let range = |ends: [&str; 2]| {
            let [first, last] = ends.map(|end| port().address(end.parse().unwrap()));
            (first, Element::range_to(last))
        };
        let wide = range(["10.0.0.0", "10.255.255.255"]);
        let narrow = range(["10.1.0.0", "10.1.255.255"]);
        let other = range(["192.0.2.0", "192.0.2.255"]);
        nf_tables::commit(&mut socket, &mut managed).unwrap();

        let mut check = |managed: &mut DesiredTable, expected: u32, what: &str| {
            let before = nf_tables::generation(&mut socket).unwrap();
            nf_tables::commit(&mut socket, managed).unwrap();
            assert_eq!(nf_tables::generation(&mut socket).unwrap() - before, expected, "{what}");
            let (read, _) = nf_tables::read(&mut socket, TableFamily::Ip, NAME).unwrap().unwrap();
            assert_eq!(read.to_string(), managed.desired().to_string(), "{what}");
        };
        managed.put_element(&checked, port(), Element::new());
        for (first, range) in [&wide, &other] {
            managed.put_element(&sources, first.clone(), range.clone());
        }
        check(&mut managed, 2, "ranges, then the other element");
        managed.remove_element(&sources, &wide.0);
        managed.remove_element(&sources, &other.0);
        managed.put_element(&sources, narrow.0.clone(), narrow.1.clone());
        check(&mut managed, 2, "a range replaces one that overlaps, then the other range is deleted");
        managed.remove_element(&checked, &port());
        check(&mut managed, 1, "no range is added");
        managed.put_element(&checked, port(), Element::new());
        check(&mut managed, 1, "no range is added");
    });
}

/// The kernel stores the comment of a table only when the table is added.
#[test]
fn a_table_that_another_process_added_again_gets_our_comment() {
    inside(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut managed = write(&sample(), &mut socket);
        for (added, replaced) in [
            ("", true),
            ("{ comment \"x\" ; }", true),
            ("; add chain inet sample theirs", true),
            // A kernel before 5.10 stores no comments: one of our chains is enough.
            ("; add chain inet sample lb", false),
        ] {
            let script = format!("delete table inet {NAME} ; add table inet {NAME} {added}");
            run(&format!("nft {}", script.replace("sample", NAME)));
            managed.invalidate();
            let committed = nf_tables::commit(&mut socket, &mut managed).unwrap();
            assert_eq!(committed.replaced, replaced, "{added}: {committed:?}");
            let (mut read, _) = nf_tables::read(&mut socket, TableFamily::Inet, NAME).unwrap().unwrap();
            if !replaced {
                read.comment.clone_from(&managed.desired().comment);
            }
            assert_eq!(&read, managed.desired(), "{added}");
        }
    });
}
