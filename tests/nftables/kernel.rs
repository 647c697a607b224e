//! All recorded states and sequences in the kernel: its tables equal the rendered ones. Each case has a network namespace.

use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::nftables::{self, NftablesProxier};
use portcullis_modes::{Mode, NodeFacts, Options};
use portcullis_netlink::nf_tables::{ChangeCounts, DesiredTable, Table, compare, open, read};

use crate::namespace;
use crate::services::{Case, assert_same, bring};

/// Syncs the states of a case, in a network namespace of its own.
pub fn sync_states(case: &Case) {
    namespace::inside(|| sync_states_here(case));
}

fn sync_states_here(case: &Case) {
    let socket = || open().expect("root").expect("a kernel with nf_tables");
    let mut index = Index::new();
    let mut desired = Desired::new(case.node());
    let mut proxier: Option<NftablesProxier> = None;
    for (i, state) in case.states().iter().enumerate() {
        let dirty = bring(&mut index, state);
        let (options, host) = case.facts(&index);
        let changes = desired.update(&index, dirty);
        let proxier = proxier.get_or_insert_with(|| {
            NftablesProxier::new(options.clone(), host.clone(), &Family::BOTH, socket())
        });
        proxier.reconfigure(options.clone(), host.clone());
        assert_sync_succeeds(case, proxier, &desired, &changes);
        // Pending removals are due later.
        while let Some(due) = proxier.next_due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            assert_sync_succeeds(case, proxier, &desired, &[]);
        }
        let what = format!("{} step {}", case.name, i + 1);
        assert_kernel_has(&desired, &options, &host, &what);
    }
    // Counters of Services can be added to existing tables, and removed.
    let Some(mut proxier) = proxier else { return };
    for service_counters in [true, false] {
        let (options, host) = case.facts(&index);
        let options = Options { service_counters, ..options };
        proxier.reconfigure(options.clone(), host.clone());
        assert_sync_succeeds(case, &mut proxier, &desired, &[]);
        let what = format!("{} with counters: {service_counters}", case.name);
        assert_kernel_has(&desired, &options, &host, &what);
    }
}

/// Syncs all Services to a kernel without tables.
pub fn sync_all(desired: &Desired, options: &Options, host: &NodeFacts) {
    let socket = open().expect("root").expect("a kernel with nf_tables");
    let mut proxier = NftablesProxier::new(options.clone(), host.clone(), &Family::BOTH, socket);
    for report in proxier.sync(desired, &[]) {
        assert!(report.error.is_none() && report.isolated.is_empty(), "{report:?}");
    }
}

/// Asserts that the kernel has the rendered tables.
pub fn assert_kernel_has(desired: &Desired, options: &Options, host: &NodeFacts, what: &str) {
    let socket = || open().expect("root").expect("a kernel with nf_tables");
    for family in Family::BOTH {
        let rendered = desired_table(&nftables::render(desired, family, options, host));
        let differs = compare(&mut socket(), &rendered).expect("the kernel is read");
        let wanted = rendered.desired();
        let held = read(&mut socket(), wanted.family, &wanted.name).expect("the kernel is read");
        let held = held.map(|(table, _)| table.to_string()).unwrap_or_default();
        let what = format!("{what} {family}");
        assert_same(&what, &wanted.to_string(), &held);
        assert_eq!(differs, ChangeCounts::default(), "{what}");
    }
}

fn assert_sync_succeeds(
    case: &Case,
    proxier: &mut NftablesProxier,
    desired: &Desired,
    changes: &[portcullis_cluster::desired::ServiceChange],
) {
    for report in proxier.sync(desired, changes) {
        assert!(report.error.is_none() && report.isolated.is_empty(), "{}: {report:?}", case.name);
    }
}

/// Returns a table as a desired one, for comparison with the kernel's.
fn desired_table(table: &Table) -> DesiredTable {
    let mut desired = DesiredTable::new(table.family, &table.name);
    desired.set_comment(table.comment.as_deref().unwrap_or_default());
    table.sets.iter().for_each(|(name, set)| desired.put_set(name, set.clone()));
    table.chains.iter().for_each(|(name, chain)| desired.put_chain(&Arc::clone(name), chain.clone()));
    desired
}
