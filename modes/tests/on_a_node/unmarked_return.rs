//! The rule of KUBE-POSTROUTING that returns packets without the mark, which another process deleted while no daemon ran.

use portcullis_cluster::Family;
use portcullis_modes::iptables::restore_unmarked_return;

use crate::namespace::{inside, run};
use crate::node::{FLAVOURS, Node, saved, tool};

#[test]
fn a_node_without_the_chain_is_not_changed() {
    inside(|| {
        for flavour in FLAVOURS {
            let node = Node::new(flavour, "mixed");
            for family in Family::BOTH {
                assert!(
                    !restore_unmarked_return(&*node.kernel(family), &node.options).unwrap(),
                    "{flavour:?}"
                );
            }
            assert!(!saved(flavour).contains("KUBE-"), "{flavour:?}");
        }
    });
}

#[test]
fn unmarked_packets_return_before_they_are_masqueraded() {
    for flavour in FLAVOURS {
        inside(move || {
            let node = Node::new(flavour, "mixed");
            node.sync();
            let before = saved(flavour);
            let restore = || {
                Family::BOTH
                    .map(|family| restore_unmarked_return(&*node.kernel(family), &node.options).unwrap())
            };
            assert_eq!((restore(), saved(flavour) == before), ([false, false], true), "{flavour:?}: intact");

            let command = tool(flavour, Family::V4);
            run(&format!("{command} -w -t nat -D KUBE-POSTROUTING 1"));
            assert_ne!(saved(flavour), before);
            assert_eq!((restore(), saved(flavour)), ([true, false], before.clone()), "{flavour:?}: deleted");

            run(&format!("{command} -w -t nat -I KUBE-POSTROUTING -j MASQUERADE"));
            assert_eq!(restore(), [true, false], "{flavour:?}: another rule comes first");
            assert_eq!(restore(), [false, false], "{flavour:?}: the unmarked return now");
        });
    }
}
