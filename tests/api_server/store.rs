//! The server's objects, by revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::resource::Resource;
use super::selector::Selector;

/// The plural of an object's resource, and its key.
type Key = (&'static str, String);

#[derive(Default)]
pub(super) struct Store {
    revision: u64,
    /// Older revisions are compacted.
    compacted: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Change>,
}

struct Change {
    revision: u64,
    key: Key,
    old: Option<Arc<Value>>,
    new: Option<Arc<Value>>,
}

impl Store {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn compact(&mut self) {
        // The history stays for open watches.
        self.compacted = self.revision;
    }

    pub(super) fn forget_history(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    pub(super) fn set_revision(&mut self, revision: u64) -> u64 {
        self.revision = self.revision.max(revision);
        self.revision
    }

    pub(super) fn restore(&mut self, revision: u64) -> u64 {
        self.objects = self.at(revision);
        self.history.retain(|change| change.revision <= revision);
        self.revision = revision;
        revision
    }

    pub(super) fn load(&mut self, object: Value) {
        let resource = Resource::of(&object);
        self.objects.insert((resource.plural, resource.key(&object)), Arc::new(object));
    }

    pub(super) fn apply(&mut self, mut object: Value, revision: Option<u64>) -> u64 {
        let revision = self.advance(revision);
        let resource = Resource::of(&object);
        let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
        if resource.namespaced {
            metadata.entry("namespace").or_insert_with(|| "default".into());
        }
        metadata.insert("resourceVersion".into(), revision.to_string().into());
        let key = (resource.plural, resource.key(&object));
        self.change(key, Some(Arc::new(object)))
    }

    pub(super) fn delete(&mut self, plural: &str, name: &str, revision: Option<u64>) -> u64 {
        self.advance(revision);
        let key = (Resource::by_plural(plural).plural, format!("/{name}"));
        assert!(self.objects.contains_key(&key), "there is no {plural} {name} to delete");
        self.change(key, None)
    }

    fn advance(&mut self, revision: Option<u64>) -> u64 {
        let next = revision.unwrap_or(self.revision + 1);
        assert!(next > self.revision, "revision {next} is not above {}", self.revision);
        self.revision = next;
        next
    }

    fn change(&mut self, key: Key, new: Option<Arc<Value>>) -> u64 {
        let old = match &new {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        self.history.push(Change { revision: self.revision, key, old, new });
        self.revision
    }

    /// Returns all objects at a revision.
    fn at(&self, revision: u64) -> BTreeMap<Key, Arc<Value>> {
        let mut objects = self.objects.clone();
        for change in self.history.iter().rev().take_while(|change| change.revision > revision) {
            match &change.old {
                Some(old) => objects.insert(change.key.clone(), old.clone()),
                None => objects.remove(&change.key),
            };
        }
        objects
    }

    /// Returns the objects of a resource at a revision, ordered by key.
    pub(super) fn list(
        &self,
        resource: &Resource,
        selector: &Selector,
        revision: u64,
    ) -> Vec<(String, Arc<Value>)> {
        let fits = |((plural, _), object): &(Key, Arc<Value>)| {
            *plural == resource.plural && selector.matches(object)
        };
        self.at(revision).into_iter().filter(fits).map(|((_, key), object)| (key, object)).collect()
    }

    pub(super) fn get(&self, resource: &Resource, key: &str) -> Option<Arc<Value>> {
        self.objects.get(&(resource.plural, key.to_owned())).cloned()
    }

    /// Returns the watch events of a resource after a revision: their types and objects.
    pub(super) fn events(
        &self,
        resource: &Resource,
        selector: &Selector,
        after: u64,
    ) -> Vec<(&'static str, Arc<Value>)> {
        let later =
            self.history.iter().filter(|change| change.revision > after && change.key.0 == resource.plural);
        later.filter_map(|change| change.event(selector)).collect()
    }
}

impl Change {
    /// Returns the watch event for a selector, if any.
    fn event(&self, selector: &Selector) -> Option<(&'static str, Arc<Value>)> {
        let matching = |object: &Option<Arc<Value>>| object.clone().filter(|object| selector.matches(object));
        match (matching(&self.old), matching(&self.new)) {
            (None, Some(new)) => Some(("ADDED", new)),
            (Some(_), Some(new)) => Some(("MODIFIED", new)),
            (Some(old), None) => {
                // The last version of the object, with the revision of its deletion.
                let mut last = Value::clone(&old);
                last["metadata"]["resourceVersion"] = self.revision.to_string().into();
                Some(("DELETED", Arc::new(last)))
            }
            (None, None) => None,
        }
    }
}
