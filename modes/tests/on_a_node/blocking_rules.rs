//! Rules of other processes that block all packets are removed before the first sync, and nothing else is changed.

use portcullis_cluster::Family;
use portcullis_modes::iptables::remove_blocking_rules;

use crate::namespace::{inside, run};
use crate::node::{FLAVOURS, Node, saved, tool};

/// Changes of another process; several commands are separated by `;`. Then the number of changes that undo them.
const CHANGES: [(&str, usize); 4] = [
    ("-t filter -I KUBE-SERVICES -j DROP", 1),
    ("-t filter -I KUBE-FORWARD 2 -j REJECT; -t filter -A KUBE-FORWARD -m comment --comment x -j DROP", 2),
    ("-t filter -I INPUT -s 203.0.113.0/24 -j DROP", 0),
    ("-t filter -I KUBE-FORWARD -p udp -j DROP", 0),
];

#[test]
fn rules_that_block_all_packets_are_removed_before_the_first_sync() {
    for flavour in FLAVOURS {
        inside(|| {
            let node = Node::new(flavour, "dual-stack");
            for family in Family::BOTH {
                let removed = remove_blocking_rules(&*node.kernel(family)).unwrap();
                assert_eq!(removed, Vec::<String>::new(), "{flavour:?}, {family}: without rules");
            }
            node.sync();
            let before = saved(flavour);
            let cases = CHANGES.into_iter().flat_map(|change| Family::BOTH.map(|family| (change, family)));
            for ((change, expected), family) in cases {
                let (tool, kernel) = (tool(flavour, family), node.kernel(family));
                // IPv6 has other addresses.
                let change = if family == Family::V6 {
                    change.replace("203.0.113.0/24", "2001:db8::/32")
                } else {
                    change.into()
                };
                change.split("; ").for_each(|arguments| drop(run(&format!("{tool} -w {arguments}"))));
                let changed = saved(flavour);
                let removed = remove_blocking_rules(&*kernel).unwrap();
                assert_eq!(removed.len(), expected, "{flavour:?}, {family}, {change}: {removed:?}");
                let after = saved(flavour);
                if expected > 0 {
                    assert_eq!(after, before, "{flavour:?}, {family}, {change}");
                } else {
                    assert_eq!(
                        after, changed,
                        "{flavour:?}, {family}, {change}: it blocks some packets only"
                    );
                    run(&format!("{tool} -w {}", change.replacen("-I", "-D", 1)));
                }
            }
        });
    }
}
