//! Golden files of our table for some states: `ours.nft` next to the recordings. `BLESS=1` regenerates them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::services::assert_same;
use crate::states;

const FILE: &str = "ours.nft";

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

#[test]
fn tables_equal_golden_files() {
    let mut printed: Vec<(PathBuf, String)> = Vec::new();
    states::each(
        |case| CASES.contains(&case.name.as_str()),
        |state| {
            let file = state.case.recording(state.step).join(FILE);
            let table = state.ours.to_string();
            match printed.last_mut().filter(|(last, _)| *last == file) {
                Some((_, text)) => text.push_str(&table),
                None => printed.push((file, table)),
            }
        },
    );
    let folders: BTreeSet<_> = printed.iter().filter_map(|(file, _)| file.ancestors().nth(3)).collect();
    assert_eq!(folders.len(), CASES.len());
    for (file, text) in printed {
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, text).expect("fixtures are writable");
            continue;
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert_same(&file.display().to_string(), &golden, &text);
    }
}
