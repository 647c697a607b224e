//! Recorded states with kube-proxy's table from the fixtures, and ours.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::config::ProxyMode;
use portcullis_cluster::desired::{Desired, ServiceChange, ServicePort};
use portcullis_cluster::{Family, Index};
use portcullis_modes::nftables::{self, ServiceTable};
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::nf_tables::Table;

use crate::recorded;
use crate::services::{Case, bring, cases};

/// A step of a case in one family.
pub struct State<'a> {
    pub case: &'a Case,
    pub step: usize,
    pub file: &'a Path,
    pub family: Family,
    pub desired: &'a Desired,
    pub options: &'a Options,
    pub node: &'a NodeFacts,
    /// kube-proxy's table.
    pub theirs: Table,
    /// Our table, rendered.
    pub ours: Table,
    /// Our table, updated step by step.
    pub updated: Table,
}

impl State<'_> {
    /// Returns the Service ports of the family.
    pub fn ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.desired.ports().filter(|port| port.family == self.family)
    }

    pub fn name(&self) -> String {
        format!("{} step {} {}", self.case.name, self.step, self.family)
    }
}

/// Visits every step and family of all cases.
pub fn each(mut visit: impl FnMut(&State<'_>)) {
    cases(ProxyMode::Nftables).iter().for_each(|case| each_of(case, &mut visit));
}

/// Visits every step and family of a case.
pub fn each_of(case: &Case, mut visit: impl FnMut(&State<'_>)) {
    let mut index = Index::new();
    let mut desired = Desired::new(case.node());
    let mut updater = Updater::default();
    for (i, file) in case.states().iter().enumerate() {
        let dirty = bring(&mut index, file);
        let (options, node) = case.facts(&index);
        let changes = desired.update(&index, dirty);
        let updated = updater.update(&desired, &changes, &options, &node);
        let desired = Desired::from_index(&index, case.node());
        let recording = case.recorded(i + 1, "ruleset.nft");
        for (family, updated) in Family::BOTH.into_iter().zip(updated) {
            visit(&State {
                case,
                step: i + 1,
                file,
                family,
                desired: &desired,
                options: &options,
                node: &node,
                theirs: recorded::table(&recording, family),
                ours: nftables::render(&desired, family, &options, &node),
                updated,
            });
        }
    }
}

pub fn there_are_more_than_220_tables() {
    let states: usize = cases(ProxyMode::Nftables).iter().map(|case| case.states().len()).sum();
    assert!(states * Family::BOTH.len() > 220, "only {states} states");
}

/// The tables of both families during the steps of a case.
#[derive(Default)]
struct Updater {
    facts: Option<(Options, NodeFacts)>,
    tables: Vec<ServiceTable>,
}

impl Updater {
    /// Returns the tables after a step, without pending removals.
    fn update(
        &mut self,
        desired: &Desired,
        changes: &[ServiceChange],
        options: &Options,
        node: &NodeFacts,
    ) -> Vec<Table> {
        let now = Instant::now();
        let facts = Some((options.clone(), node.clone()));
        let is_new = self.facts != facts;
        if is_new {
            self.facts = facts;
            self.tables = Family::BOTH.map(|family| ServiceTable::new(family, options, node)).into();
        }
        let all: Vec<ServiceChange> = desired
            .services()
            .iter()
            .map(|(name, after)| ServiceChange {
                name: name.clone(),
                before: Arc::default(),
                after: Arc::clone(after),
            })
            .collect();
        for table in &mut self.tables {
            table.apply(desired, if is_new { &all } else { changes }, now);
            table.apply(desired, &[], now + Duration::from_secs(60));
        }
        self.tables.iter().map(|table| table.desired().clone()).collect()
    }
}
