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
    /// There were too many: all frontends are affected, also those of removed Services.
    are_all: bool,
}

impl Default for WaitingFrontends {
    fn default() -> Self {
        WaitingFrontends { by_service: BTreeMap::new(), count: 0, max: MAX_WAITING, are_all: false }
    }
}

/// Frontends whose flows are examined.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DueFrontends {
    /// These.
    Only(HashSet<FrontendAddress>),
    /// All others than these, in these families. A flow to an address of no Service is examined, too: it may be that of a removed one.
    AllExcept(HashSet<FrontendAddress>, [bool; 2]),
}

impl DueFrontends {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, DueFrontends::Only(frontends) if frontends.is_empty())
    }

    pub(super) fn contains(&self, frontend: &FrontendAddress) -> bool {
        match self {
            DueFrontends::Only(frontends) => frontends.contains(frontend),
            DueFrontends::AllExcept(excluded, _) => !excluded.contains(frontend),
        }
    }
}

impl WaitingFrontends {
    /// Keeps at most this number of frontends one by one.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_service.is_empty() && !self.are_all
    }

    /// Returns the number of Services with affected frontends.
    pub(super) fn services(&self, desired: &Desired) -> usize {
        if self.are_all { desired.services().len() } else { self.by_service.len() }
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
        if self.are_all {
            if results.iter().any(|result| result.error.is_some()) {
                return (DueFrontends::Only(HashSet::new()), self.clone());
            }
            let mut excluded = HashSet::new();
            for (family, service) in unwritten {
                let ports = desired.services().get(service).into_iter().flat_map(|ports| ports.iter());
                let of_family = ports.filter(|port| port.family == family);
                let frontends = of_family.flat_map(|port| port.frontends().map(|frontend| frontend.address));
                let frontends: Vec<FrontendAddress> = frontends.collect();
                excluded.extend(&frontends);
                waiting.add(service, frontends);
            }
            let families = Family::BOTH.map(|family| results.iter().any(|result| result.family == family));
            return (DueFrontends::AllExcept(excluded, families), waiting);
        }
        let mut due = HashSet::new();
        for (name, frontends) in &self.by_service {
            for frontend in frontends {
                let family = frontend.family();
                let Some(result) = results.iter().find(|r| r.family == family) else { continue };
                if result.error.is_some() || unwritten.contains(&(family, name)) {
                    waiting.add(name, [*frontend]);
                } else {
                    due.insert(*frontend);
                }
            }
        }
        (DueFrontends::Only(due), waiting)
    }
}
