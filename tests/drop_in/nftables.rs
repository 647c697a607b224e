//! nftables mode. Its table differs from kube-proxy's, so it is compared with the rendered table. The daemon has no tools in
//! its PATH.

use libtest_mimic::Trial;
use portcullis::config::ProxyMode;

use crate::follow::case_trials;
use crate::recorded_objects::{NOTHING_ELSE, RecordedObjects, SYSCTLS, TABLES};

/// The compared objects.
const OBJECTS: [RecordedObjects; 3] = [TABLES, NOTHING_ELSE, SYSCTLS];

pub(crate) fn trials() -> Vec<Trial> {
    case_trials(ProxyMode::Nftables, &OBJECTS)
}
