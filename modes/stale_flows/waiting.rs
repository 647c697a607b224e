//! The affected frontends that wait for their rules.

use std::collections::{BTreeMap, HashSet};

use portcullis_cluster::desired::{Desired, FrontendAddress};
use portcullis_cluster::{Family, NamespacedName};

use crate::mode::SyncResult;

/// The affected frontends that are kept one by one. Beyond, all flows are examined: while syncs fail, tenants may create and delete
/// Services without end.
const MAX_WAITING: usize = 100_000;

/// The affected frontends of Services whose rules may not be written yet.
#[derive(Clone, Debug)]
pub(super) struct WaitingFrontends {
    by_service: BTreeMap<NamespacedName, HashSet<FrontendAddress>>,
    count: usize,
    max: usize,
    /// The families in which the frontends of all Services are affected, beside those in `by_service`. A start affects them all, so they
    /// are not copied.
    all_served: [bool; 2],
    /// There were too many: all frontends are affected, also those of removed Services.
    are_all: bool,
}

impl Default for WaitingFrontends {
    fn default() -> Self {
        WaitingFrontends {
            by_service: BTreeMap::new(),
            count: 0,
            max: MAX_WAITING,
            all_served: [false; 2],
            are_all: false,
        }
    }
}

/// Frontends whose flows are examined.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DueFrontends {
    /// Frontends of changed Services, also of removed ones.
    pub(super) changed: HashSet<FrontendAddress>,
    /// The families in which the frontends of all Services are examined.
    pub(super) all_served: [bool; 2],
    /// The families in which all flows are examined. A flow to an address of no Service may be that of a removed one.
    pub(super) all: [bool; 2],
    /// The exceptions from `all_served` and `all`.
    pub(super) excluded: HashSet<FrontendAddress>,
}

impl DueFrontends {
    /// Returns true if flows to a frontend are examined. `is_served` says whether a Service may have flows there now.
    pub(super) fn contains(&self, frontend: &FrontendAddress, is_served: bool) -> bool {
        let family = frontend.family() as usize;
        let is_one_of_all = self.all[family] || (self.all_served[family] && is_served);
        self.changed.contains(frontend) || (is_one_of_all && !self.excluded.contains(frontend))
    }
}

impl WaitingFrontends {
    /// Keeps at most this number of frontends one by one.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_service.is_empty() && self.all_served == [false; 2] && !self.are_all
    }

    /// Returns the number of Services with affected frontends.
    pub(super) fn services(&self, desired: &Desired) -> usize {
        match self.are_all || self.all_served != [false; 2] {
            true => desired.services().len(),
            false => self.by_service.len(),
        }
    }

    /// Adds the frontends of all Services in a family.
    pub(super) fn add_all_served(&mut self, family: Family) {
        self.all_served[family as usize] = true;
    }

    /// Adds affected frontends of a Service.
    pub(super) fn add(
        &mut self,
        service: &NamespacedName,
        frontends: impl IntoIterator<Item = FrontendAddress>,
    ) {
        let mut frontends = frontends.into_iter().peekable();
        if self.are_all || frontends.peek().is_none() {
            return;
        }
        let of_service = self.by_service.entry(service.clone()).or_default();
        let before = of_service.len();
        of_service.extend(frontends);
        self.count += of_service.len() - before;
        if self.count > self.max {
            tracing::warn!(
                "more than {} addresses and node ports of changed Services wait for their rules; all flows are examined once \
                 syncs succeed",
                self.max
            );
            *self = WaitingFrontends { max: self.max, are_all: true, ..WaitingFrontends::default() };
        }
    }

    /// Divides the frontends into those with written rules and those that must wait. Frontends of a family that is not served are in
    /// neither part: it has no flows.
    pub(super) fn divide(
        &self,
        results: &[SyncResult],
        desired: &Desired,
    ) -> (DueFrontends, WaitingFrontends) {
        let isolated = results.iter().flat_map(|r| r.isolated.iter().map(|i| (r.family, &i.service)));
        let deferred = results.iter().flat_map(|r| r.deferred.iter().map(|service| (r.family, service)));
        let unwritten: HashSet<(Family, &NamespacedName)> = isolated.chain(deferred).collect();
        let mut waiting = WaitingFrontends { max: self.max, ..WaitingFrontends::default() };
        let mut due = DueFrontends::default();
        if self.are_all {
            if results.iter().any(|result| result.error.is_some()) {
                return (due, self.clone());
            }
            due.all = Family::BOTH.map(|family| results.iter().any(|result| result.family == family));
            Self::exclude(&unwritten, desired, &mut due, &mut waiting);
            return (due, waiting);
        }
        for result in results.iter().filter(|result| self.all_served[result.family as usize]) {
            let all = if result.error.is_some() { &mut waiting.all_served } else { &mut due.all_served };
            all[result.family as usize] = true;
        }
        if due.all_served != [false; 2] {
            Self::exclude(&unwritten, desired, &mut due, &mut waiting);
        }
        for (name, frontends) in &self.by_service {
            for frontend in frontends {
                let family = frontend.family();
                let Some(result) = results.iter().find(|r| r.family == family) else { continue };
                if result.error.is_some() || unwritten.contains(&(family, name)) {
                    waiting.add(name, [*frontend]);
                } else {
                    due.changed.insert(*frontend);
                }
            }
        }
        (due, waiting)
    }

    /// Excludes the frontends of unwritten Services, which wait.
    fn exclude(
        unwritten: &HashSet<(Family, &NamespacedName)>,
        desired: &Desired,
        due: &mut DueFrontends,
        waiting: &mut WaitingFrontends,
    ) {
        for &(family, service) in unwritten {
            if !due.all[family as usize] && !due.all_served[family as usize] {
                continue;
            }
            let ports = desired.services().get(service).into_iter().flat_map(|ports| ports.iter());
            let of_family = ports.filter(|port| port.family == family);
            let frontends = of_family.flat_map(|port| port.frontends().map(|frontend| frontend.address));
            let frontends: Vec<FrontendAddress> = frontends.collect();
            due.excluded.extend(&frontends);
            waiting.add(service, frontends);
        }
    }
}
