//! The dispatch steps that Services need, and their maps and chains in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use portcullis_netlink::nf_tables::{DesiredTable, Key};

use super::affinity;
use super::base_chains::{self, SERVICE_ENDPOINTS_CHECK};
use super::dispatch::{self, DispatchStep};
use super::dispatch_by_count::CountMaps;
use super::endpoint_map::FrontendKey;
use super::service_table::take_due;
use super::settings::Settings;

/// The steps of the dispatch chains.
#[derive(Debug)]
pub(super) struct DispatchSteps {
    /// The number of frontends that need each step.
    users: BTreeMap<DispatchStep, usize>,
    /// Steps that no frontend needs any more, and the time of their removal.
    pending: BTreeMap<DispatchStep, Instant>,
    /// The frontend keys whose dispatch chains do not match the steps.
    outdated: BTreeSet<FrontendKey>,
}

impl DispatchSteps {
    /// Returns no steps.
    pub(super) fn new() -> Self {
        DispatchSteps { users: BTreeMap::new(), pending: BTreeMap::new(), outdated: FrontendKey::ALL.into() }
    }

    /// Adds frontends that need a step, with its map if it is new.
    pub(super) fn add(
        &mut self,
        step: DispatchStep,
        uses: usize,
        table: &mut DesiredTable,
        settings: &Settings,
    ) {
        let users = self.users.entry(step).or_default();
        let is_new = *users == 0 && self.pending.remove(&step).is_none();
        *users += uses;
        if !is_new {
            return;
        }
        self.outdated.insert(step.key());
        match step {
            DispatchStep::EndpointMap(map) => {
                table.put_set(&map.name(), map.map(settings));
                table.put_chain(&map.name(), map.chain(settings));
                if let Some(maps) = map.count_maps() {
                    maps.add(map, table, settings);
                }
            }
            DispatchStep::AffinityUpdate(key, timeout) => {
                let chain = affinity::update_chain(key, timeout, settings);
                table.put_chain(&affinity::update_chain_name(key, timeout).into(), chain);
                let (timeout, element) = affinity::update_element(key, timeout);
                table.put_element(&key.affinity_updates().into(), timeout, element);
            }
            DispatchStep::LocalPolicy(_) | DispatchStep::Affinity { .. } => {}
        }
    }

    /// Removes frontends that needed a step. Without any, the step is removed at the given time.
    pub(super) fn remove(&mut self, step: DispatchStep, uses: usize, at: Instant) {
        let Some(users) = self.users.get_mut(&step) else { return };
        *users -= uses;
        if *users == 0 {
            self.users.remove(&step);
            self.pending.insert(step, at);
        }
    }

    /// Removes the steps that are due, with their maps.
    pub(super) fn remove_due(&mut self, now: Instant, table: &mut DesiredTable) {
        for step in take_due(&mut self.pending, now) {
            self.outdated.insert(step.key());
            match step {
                DispatchStep::EndpointMap(map) => {
                    table.remove_chain(&map.name());
                    table.remove_set(&map.name());
                    if let Some(maps) = map.count_maps() {
                        maps.remove(map, !self.needs_count_maps(maps), table);
                    }
                }
                DispatchStep::AffinityUpdate(key, timeout) => {
                    table.remove_element(&key.affinity_updates().into(), &Key::new().number(timeout));
                    table.remove_chain(&Arc::from(affinity::update_chain_name(key, timeout)));
                }
                DispatchStep::LocalPolicy(_) | DispatchStep::Affinity { .. } => {}
            }
        }
    }

    /// Returns the times of the pending removals.
    pub(super) fn removals(&self) -> impl Iterator<Item = Instant> + '_ {
        self.pending.values().copied()
    }

    /// Returns true if the endpoint map of a step is found by these maps.
    fn needs_count_maps(&self, maps: CountMaps) -> bool {
        let needs_maps = |step: &DispatchStep| match step {
            DispatchStep::EndpointMap(map) => map.count_maps() == Some(maps),
            _ => false,
        };
        self.users.keys().chain(self.pending.keys()).any(needs_maps)
    }

    /// Rewrites outdated dispatch chains. They keep the steps whose removal is pending.
    pub(super) fn update_chains(&mut self, table: &mut DesiredTable, settings: &Settings) {
        if self.outdated.is_empty() {
            return;
        }
        let steps: BTreeSet<DispatchStep> = self.users.keys().chain(self.pending.keys()).copied().collect();
        let has_affinity = steps.iter().any(|step| matches!(step, DispatchStep::AffinityUpdate(..)));
        let check = base_chains::service_endpoints_check(settings, has_affinity);
        table.put_chain(&SERVICE_ENDPOINTS_CHECK.into(), check);
        for key in std::mem::take(&mut self.outdated) {
            for (name, chain) in dispatch::chains(key, steps.iter().copied(), settings) {
                table.put_chain(&name.into(), chain);
            }
        }
    }
}
