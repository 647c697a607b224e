//! Changes that affect Services, collected until the next update of [`Desired`](super::Desired).

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::change::Change;
use crate::kind::Kind;
use crate::name::{Name, NamespacedName};

/// The most trigger times that are kept until an update, so that they do not grow without limit while no sync succeeds. The oldest are
/// kept: they show how long changes have waited.
pub const MAX_TRIGGER_TIMES: usize = 100_000;

/// The Services that are affected by changes of the index since the last update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirtyServices {
    /// Services of which the object or an EndpointSlice changed.
    pub services: BTreeSet<NamespacedName>,
    /// Nodes that changed.
    pub nodes: BTreeSet<Name>,
    /// The number of changes of Services.
    pub service_changes: usize,
    /// The number of changes of EndpointSlices.
    pub slice_changes: usize,
    /// ServiceCIDRs changed.
    pub service_cidrs: bool,
    /// The trigger times of changed EndpointSlices, up to [`MAX_TRIGGER_TIMES`].
    pub trigger_times: Vec<Timestamp>,
}

impl DirtyServices {
    /// The kinds of objects that affect Services.
    pub const KINDS: [Kind; 4] = [Kind::Node, Kind::Service, Kind::EndpointSlice, Kind::ServiceCidr];

    /// Returns the number of changes of Services and EndpointSlices.
    pub fn changed_objects(&self) -> usize {
        self.service_changes + self.slice_changes
    }

    /// Adds a change. Changes of other kinds are ignored.
    pub fn add(&mut self, change: &Change) {
        match change.key.kind {
            Kind::Node => _ = self.nodes.insert(change.cluster_scoped_name()),
            Kind::Service => {
                self.services.insert(change.key.name.clone());
                self.service_changes += 1;
            }
            Kind::EndpointSlice => {
                let Some(slice) = &change.slice else { return };
                self.services.insert(slice.service.clone());
                self.slice_changes += 1;
                if self.trigger_times.len() < MAX_TRIGGER_TIMES {
                    self.trigger_times.extend(slice.trigger_time);
                }
            }
            Kind::ServiceCidr => self.service_cidrs = true,
            _ => {}
        }
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        *self == DirtyServices::default()
    }

    /// Returns true if there are no changes that affect the Services of a node: of the nodes, only this one does.
    pub fn is_empty_for(&self, node: &Name) -> bool {
        !self.nodes.contains(node)
            && self.services.is_empty()
            && self.service_changes == 0
            && self.slice_changes == 0
            && !self.service_cidrs
            && self.trigger_times.is_empty()
    }
}

impl Extend<Change> for DirtyServices {
    fn extend<I: IntoIterator<Item = Change>>(&mut self, changes: I) {
        changes.into_iter().for_each(|change| self.add(&change));
    }
}
