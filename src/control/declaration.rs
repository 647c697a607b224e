//! The declaration of a controller, which is known before the controller is created.

use portcullis_cluster::{Index, Kind, ObjectKey};

use super::controller_name::ControllerName;
use crate::source::Selection;

/// What a controller is called, writes and needs. The source requests the objects that controllers declare, and health
/// expects the syncs of the declared rules.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    /// The name.
    pub(crate) name: ControllerName,
    /// The sets of rules that are synced as a whole each, such as IP families.
    pub(crate) rules: Vec<&'static str>,
    /// The objects that it needs.
    pub(crate) watches: Vec<Watch>,
}

/// Objects of one kind that a controller needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    /// The objects.
    pub(crate) selection: Selection,
    /// They must have been listed before the first sync: with fewer objects it would remove rules that are still needed.
    pub(crate) is_required: bool,
}

impl Watch {
    /// A watch of objects that must have been listed before the first sync.
    pub(crate) fn required(selection: Selection) -> Self {
        Watch { selection, is_required: true }
    }

    /// A watch of objects without which the first sync may start.
    pub(crate) fn optional(selection: Selection) -> Self {
        Watch { selection, is_required: false }
    }
}

impl Declaration {
    /// Returns the objects that these controllers need, each kind once.
    pub(crate) fn selections(controllers: &[Declaration]) -> Vec<Selection> {
        let watches = controllers.iter().flat_map(|controller| &controller.watches);
        Selection::union(watches.map(|watch| watch.selection.clone()))
    }

    /// Returns true if all required kinds have been listed.
    pub(crate) fn is_ready(&self, index: &Index) -> bool {
        self.required_kinds().all(|kind| index.is_listed(kind))
    }

    /// Returns true if an object that the controller needs exists, and no version of it could be read.
    pub(crate) fn has_unreadable_objects(&self, index: &Index) -> bool {
        let is_needed = |key: &ObjectKey| self.watches.iter().any(|watch| watch.selection.may_include(key));
        index.unreadable().iter().any(is_needed)
    }

    fn required_kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        self.watches.iter().filter(|watch| watch.is_required).map(|watch| watch.selection.kind)
    }
}
