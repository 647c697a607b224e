//! iptables mode, with the machine's default flavour of iptables.

use libtest_mimic::Trial;
use portcullis::config::ProxyMode;

use crate::follow::case_trials;
use crate::recorded_objects::{IPV4_RULES, IPV6_RULES, RecordedObjects, SYSCTLS};

/// The compared objects.
const OBJECTS: [RecordedObjects; 3] = [IPV4_RULES, IPV6_RULES, SYSCTLS];

pub(crate) fn trials() -> Vec<Trial> {
    case_trials(ProxyMode::Iptables, &OBJECTS)
}
