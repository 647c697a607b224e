//! A table that was changed step by step equals one that was rendered.

use portcullis_cluster::Family;
use portcullis_modes::nftables::render;
use proptest::prelude::*;

use crate::cluster::{Cluster, node, options, steps};

proptest! {
    #[test]
    fn changed_table_equals_rendered_one(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in &steps {
            cluster.apply(step);
        }
        let changed = cluster.complete_removals().to_string();
        let rendered = render(&cluster.desired, Family::V4, &options(), &node()).to_string();
        prop_assert_eq!(changed, rendered);
    }

    #[test]
    fn changed_table_equals_rendered_one_after_each_step(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in &steps {
            cluster.apply(step);
            let changed = cluster.complete_removals().to_string();
            let rendered = render(&cluster.desired, Family::V4, &options(), &node()).to_string();
            prop_assert_eq!(changed, rendered);
        }
    }
}
