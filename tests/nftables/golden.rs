//! Golden files of our table for some states: `ours.nft` next to the recordings. `BLESS=1` regenerates them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use portcullis_modes::{Options, nftables};

use crate::services::{Case, assert_same};
use crate::states;

const FILE: &str = "ours.nft";

/// The golden file of the table with counters of Services.
const COUNTED: &str = "ours-counted.nft";

/// The cases that have a golden file with counters.
const COUNTED_CASES: [&str; 3] = ["affinity-nodeport-lb", "dual-stack", "nodeport-cidr-zero"];

const CASES: [&str; 14] = [
    "affinity-nodeport-lb",
    "both-local",
    "clusterip-tcp",
    "detect-prefix",
    "dual-stack",
    "etp-local",
    "etp-local-none",
    "external-ips",
    "lb-source-ranges",
    "masquerade-bit-15",
    "no-endpoints",
    "nodeport-cidr-zero",
    "nodeport-protocols",
    "service-cidr-change",
];

/// Returns the names of the cases that have golden files.
pub fn cases() -> Vec<String> {
    CASES.map(str::to_owned).into()
}

/// Compares the tables of both families with the golden file of each step.
pub fn compare(case: &Case) {
    let mut printed: BTreeMap<PathBuf, String> = BTreeMap::new();
    states::each_of(case, |state| {
        let file = case.recording(state.step).join(FILE);
        printed.entry(file).or_default().push_str(&state.ours.to_string());
        if COUNTED_CASES.contains(&&*case.name) {
            let options = Options { service_counters: true, ..state.options.clone() };
            let counted = nftables::render(state.desired, state.family, &options, state.node);
            let file = case.recording(state.step).join(COUNTED);
            printed.entry(file).or_default().push_str(&counted.to_string());
        }
    });
    assert!(!printed.is_empty(), "{} has no states", case.name);
    for (file, text) in printed {
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, text).expect("fixtures are writable");
            continue;
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert_same(&file.display().to_string(), &golden, &text);
    }
}
