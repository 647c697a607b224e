//! Recorded states with both tables: kube-proxy's as it stands in the fixtures, and ours.

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
    pub host: &'a NodeFacts,
    pub theirs: Table,
    /// Rendered from nothing.
    pub ours: Table,
    /// Ours, as it followed from step to step.
    pub followed: Table,
}

impl State<'_> {
    /// Ports of Services in the family.
    pub fn ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.desired.ports().filter(|port| port.family == self.family)
    }

    pub fn name(&self) -> String {
        format!("{} step {} {}", self.case.name, self.step, self.family)
    }
}

/// Visits every step and family of the cases that are wanted.
pub fn each(is_wanted: impl Fn(&Case) -> bool, mut visit: impl FnMut(&State<'_>)) {
    for case in cases(ProxyMode::Nftables).iter().filter(|case| is_wanted(case)) {
        let mut index = Index::new();
        let mut desired = Desired::new(case.node());
        let mut follower = Follower::default();
        for (i, file) in case.states().iter().enumerate() {
            bring(&mut index, file);
            let (options, host) = case.facts(&index);
            let touched = index.take_dirty_services();
            let changes = desired.update(&index, touched);
            let followed = follower.follow(&desired, &changes, &options, &host);
            let desired = Desired::from_index(&index, case.node());
            let recording = case.recorded(i + 1, "ruleset.nft");
            for (family, followed) in Family::BOTH.into_iter().zip(followed) {
                visit(&State {
                    case,
                    step: i + 1,
                    file,
                    family,
                    desired: &desired,
                    options: &options,
                    host: &host,
                    theirs: recorded::table(&recording, family),
                    ours: nftables::render(&desired, family, &options, &host),
                    followed,
                });
            }
        }
    }
}

/// Both families' tables on their way through the steps of a case.
#[derive(Default)]
struct Follower {
    facts: Option<(Options, NodeFacts)>,
    tables: Vec<ServiceTable>,
}

impl Follower {
    /// The tables once what the steps before left is gone.
    fn follow(
        &mut self,
        desired: &Desired,
        changes: &[ServiceChange],
        options: &Options,
        host: &NodeFacts,
    ) -> Vec<Table> {
        let now = Instant::now();
        let facts = Some((options.clone(), host.clone()));
        let is_new = self.facts != facts;
        if is_new {
            self.facts = facts;
            self.tables = Family::BOTH.map(|family| ServiceTable::new(family, options, host)).into();
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
