//! EndpointSlices by their Services.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::change::{Change, SliceChange};
use crate::endpoint_slice::EndpointSlice;
use crate::kind::Kind;
use crate::name::NamespacedName;
use crate::object::ObjectKey;
use crate::sparse;

/// The EndpointSlices of all Services. A slice without a Service is not stored.
#[derive(Clone, Default)]
pub(super) struct SliceStore {
    /// The slices of each Service, ordered by name.
    slices: HashMap<NamespacedName, Vec<EndpointSlice>>,
    /// The Service of each slice.
    services: HashMap<NamespacedName, NamespacedName>,
}

impl SliceStore {
    /// Returns the slices of a Service, by name.
    pub(super) fn of_service(&self, service: &NamespacedName) -> &[EndpointSlice] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
    }

    /// Returns the names of all slices.
    pub(super) fn names(&self) -> &HashMap<NamespacedName, NamespacedName> {
        &self.services
    }

    /// Returns the name of a Service that has slices.
    pub(super) fn service_name(&self, service: &NamespacedName) -> Option<&NamespacedName> {
        self.slices.get_key_value(service).map(|(name, _)| name)
    }

    /// Adds or replaces a slice. A slice that moves from one Service to another is one change of each.
    pub(super) fn apply(&mut self, mut slice: EndpointSlice) -> Vec<Change> {
        let Some(service) = slice.service.take() else {
            return self.remove(slice.key).into_iter().collect();
        };
        // The strings of names that are known, instead of copies.
        let service = self.service_name(&service).cloned().unwrap_or(service);
        let key = self.services.get_key_value(&slice.key).map_or(slice.key, |(key, _)| key.clone());
        (slice.key, slice.service) = (key.clone(), Some(service.clone()));
        let has_moved = self.services.get(&key).is_some_and(|old| *old != service);
        let removed = if has_moved { self.remove(key.clone()) } else { None };
        self.services.insert(key.clone(), service.clone());
        // Most Services have one slice, for which a vector would reserve four places.
        let slices = self.slices.entry(service.clone()).or_insert_with(|| Vec::with_capacity(1));
        let mut trigger_time = slice.trigger_time;
        match slices.binary_search_by(|s| s.key.cmp(&key)) {
            Ok(at) if slices[at] == slice => return Vec::new(),
            Ok(at) => {
                trigger_time = trigger_time.filter(|_| slices[at].trigger_time != slice.trigger_time);
                slices[at] = slice;
            }
            Err(at) => {
                if slices.len() == slices.capacity() {
                    slices.reserve_exact(slices.len() / 4 + 1);
                }
                slices.insert(at, slice);
            }
        }
        let added = slice_change(key, service, trigger_time);
        removed.into_iter().chain([added]).collect()
    }

    /// Removes a slice.
    pub(super) fn remove(&mut self, key: NamespacedName) -> Option<Change> {
        let service = sparse::remove(&mut self.services, &key)?;
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.retain(|s| s.key != key);
            if slices.is_empty() {
                sparse::remove(&mut self.slices, &service);
            }
        }
        Some(slice_change(key, service, None))
    }
}

fn slice_change(name: NamespacedName, service: NamespacedName, trigger_time: Option<Timestamp>) -> Change {
    let key = ObjectKey { kind: Kind::EndpointSlice, name };
    Change { key, slice: Some(SliceChange { service, trigger_time }) }
}
