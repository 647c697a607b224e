//! However it came there: a table is that of its Services.

use portcullis_cluster::Family;
use portcullis_modes::nftables::render;
use proptest::prelude::*;

use crate::cluster::{Cluster, host, options, steps};

proptest! {
    #[test]
    fn a_table_that_followed_is_one_from_nothing(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in &steps {
            cluster.take(step);
        }
        let settled = cluster.settle().to_string();
        let rendered = render(&cluster.desired, Family::V4, &options(), &host()).to_string();
        prop_assert_eq!(settled, rendered);
    }

    #[test]
    fn a_table_that_waited_after_each_step_is_one_from_nothing(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in &steps {
            cluster.take(step);
            let settled = cluster.settle().to_string();
            let rendered = render(&cluster.desired, Family::V4, &options(), &host()).to_string();
            prop_assert_eq!(settled, rendered);
        }
    }
}
