//! Parser of recorded rule sets (`nft -s list ruleset`), for the grammar that kube-proxy uses.

mod block;
mod elements;
mod rule;
pub mod span;
mod words;

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::{Table, TableFamily};

/// Returns kube-proxy's table of a family.
pub fn table(recording: &str, family: Family) -> Table {
    let family = match family {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    };
    let mut tables = block::tables(recording).into_iter();
    tables
        .find(|table| table.family == family && &*table.name == "kube-proxy")
        .unwrap_or_else(|| panic!("no table {} kube-proxy", family.as_str()))
}

/// Parsed rules print as the lines that they were parsed from, except rules with anonymous sets, constant targets and
/// address blocks, which print differently.
pub fn parsed_recordings_print_unchanged() {
    let mut lines = 0;
    for case in crate::services::cases(portcullis::config::ProxyMode::Nftables) {
        for step in 1..=case.states().len() {
            let text = case.recorded(step, "ruleset.nft");
            let printed: Vec<String> =
                Family::BOTH.iter().map(|family| table(&text, *family).to_string()).collect();
            let printed: std::collections::HashSet<&str> = printed.iter().flat_map(|t| t.lines()).collect();
            let is_rule = |line: &&str| line.starts_with("\t\t") && !line.starts_with("\t\t\t");
            let comparable = |line: &&str| {
                !["{", "dnat", "elements =", "type ", "flags ", "ct status"]
                    .iter()
                    .any(|word| line.contains(word))
                    && line.trim() != "}"
                    && !line.split(' ').any(|word| word.parse::<ipnet::IpNet>().is_ok())
            };
            for line in text.lines().filter(is_rule).filter(comparable) {
                assert!(printed.contains(line), "{} step {step}: {line}", case.name);
                lines += 1;
            }
        }
    }
    assert!(lines > 4000, "only {lines} lines");
}
