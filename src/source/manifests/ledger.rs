//! What the manifests have given, and what another reading changes of that.
//!
//! The objects themselves are with the index; here is only what it takes to tell that one has changed: a
//! hash. Documents are known by a hash of their text, so that of a large folder only what was edited is
//! parsed again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;

use portcullis_cluster::manifest::{self, Chunk, Document, ManifestError};
use portcullis_cluster::{Event, Kind, Object, ObjectKey, Problem};
use serde_json::Value;

use super::files::{Listing, PathError, list};

/// What has been given so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    hasher: RandomState,
    /// Readable documents, by the hash of their text.
    documents: HashMap<u64, Arc<[Given]>>,
    /// What stands, by its key.
    held: HashMap<ObjectKey, Held>,
    /// Every kind has been listed.
    listed: bool,
    /// Objects of which no version could be read since the start. Of a document whose kind cannot be read, those
    /// without a name of all kinds.
    unread: BTreeSet<ObjectKey>,
    /// Every object could be read at one time. From then on, what cannot be read was known before, or is new.
    complete: bool,
}

/// An object that a document gives.
#[derive(Clone, Debug)]
struct Given {
    key: ObjectKey,
    hash: u64,
    /// Its line, counted from that of the document.
    line: usize,
    /// A field of it is ignored.
    doubtful: bool,
}

/// The version of an object that stands.
#[derive(Clone, Debug)]
struct Held {
    hash: u64,
    file: Arc<str>,
    line: usize,
}

/// What a reading brought.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What has changed.
    pub(super) events: Vec<Event>,
    /// Documents that cannot be read.
    pub(super) errors: Vec<ManifestError>,
    /// Fields that are ignored, of objects that were not read so before.
    pub(super) problems: Vec<(ObjectKey, Problem)>,
    /// Objects that stand twice.
    pub(super) duplicates: Vec<ManifestError>,
    /// The kinds, in words, of objects that we do not use; of documents that were not read so before.
    pub(super) ignored: BTreeSet<String>,
    /// Objects that cannot be read as a whole.
    pub(super) unreadable: Vec<ObjectKey>,
    /// Objects of which a field is ignored.
    pub(super) doubtful: Vec<ObjectKey>,
    /// Why sub-folders and kustomizations are not read.
    pub(super) skipped: Vec<String>,
}

impl Ledger {
    /// Reads everything, and notes it.
    ///
    /// # Errors
    /// The path cannot be read; nothing has changed then.
    pub(super) fn read(&mut self, path: &Path) -> Result<Outcome, PathError> {
        let Listing { files, skipped } = list(path)?;
        let mut reading = Reading::of(self);
        reading.outcome.skipped = skipped;
        for file in files {
            let name: Arc<str> = file.to_string_lossy().into();
            match text_of(&file) {
                Ok(text) => reading.file(&name, &text),
                // It went between the look at the folder and now.
                Err(Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound && file != path => {}
                Err(Unreadable { error, .. }) if file == path => {
                    return Err(PathError { path: path.to_owned(), source: error });
                }
                Err(Unreadable { error, line }) => reading.broken(&name, line, &error.to_string()),
            }
        }
        let (ledger, outcome) = reading.finish();
        *self = ledger;
        Ok(outcome)
    }
}

struct Unreadable {
    error: io::Error,
    line: usize,
}

fn text_of(file: &Path) -> Result<String, Unreadable> {
    let bytes = fs::read(file).map_err(|error| Unreadable { error, line: 1 })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        Unreadable { error: io::Error::other("this is no UTF-8 text"), line }
    })
}

/// A reading under way.
struct Reading<'a> {
    before: &'a mut Ledger,
    now: Ledger,
    /// Objects that are not as they were, and the order in which they came.
    changed: HashMap<ObjectKey, (usize, Object)>,
    order: usize,
    /// Objects that cannot be read, and the files that have them.
    unreadable: Vec<(ObjectKey, Arc<str>)>,
    /// Files with documents of which not even the key can be read.
    broken: HashSet<Arc<str>>,
    outcome: Outcome,
}

impl<'a> Reading<'a> {
    fn of(before: &'a mut Ledger) -> Self {
        let now = Ledger { hasher: before.hasher.clone(), listed: true, ..Ledger::default() };
        Reading {
            before,
            now,
            changed: HashMap::new(),
            order: 0,
            unreadable: Vec::new(),
            broken: HashSet::new(),
            outcome: Outcome::default(),
        }
    }

    fn file(&mut self, name: &Arc<str>, text: &str) {
        for chunk in manifest::split(name, text) {
            let id = self.now.hasher.hash_one(chunk.text);
            match self.before.documents.get(&id) {
                Some(given) if given.iter().all(|given| self.stood(given)) => {
                    let given = given.clone();
                    given.iter().for_each(|given| self.give(name, chunk.line + given.line, given, None));
                    self.now.documents.insert(id, given);
                }
                _ => self.chunk(name, chunk, id),
            }
        }
    }

    /// Whether this very version stood before.
    fn stood(&self, given: &Given) -> bool {
        self.before.held.get(&given.key).is_some_and(|held| held.hash == given.hash)
    }

    fn chunk(&mut self, name: &Arc<str>, chunk: Chunk<'_>, id: u64) {
        let mut all_given = Some(Vec::new());
        for document in chunk.documents(name) {
            if document.is_err() {
                self.broken.insert(name.clone());
            }
            match document.and_then(|document| self.document(name, chunk, document)) {
                Ok(Some(given)) => all_given.iter_mut().for_each(|all| all.push(given.clone())),
                Ok(None) => {}
                Err(error) => {
                    self.outcome.errors.push(error);
                    all_given = None;
                }
            }
        }
        if let Some(all) = all_given {
            self.now.documents.insert(id, all.into());
        }
    }

    /// Takes in one object; `None` if it is of a kind that we do not use.
    fn document(
        &mut self,
        name: &Arc<str>,
        chunk: Chunk<'_>,
        document: Document,
    ) -> Result<Option<Given>, ManifestError> {
        let Document { line, kind, value } = document;
        let Some(kind) = kind else {
            let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
            self.outcome.ignored.insert(format!("{} {}", text("apiVersion"), text("kind")));
            return Ok(None);
        };
        let error = |message: String| ManifestError { file: name.to_string(), line, message };
        let key = ObjectKey::parse(kind, &value).map_err(|e| {
            self.broken.insert(name.clone());
            error(e.to_string())
        })?;
        let hash = self.hash(&value);
        let parsed = Object::parse(kind, value).map_err(|e| {
            self.unreadable.push((key.clone(), name.clone()));
            error(e.to_string())
        })?;
        let given =
            Given { key: key.clone(), hash, line: line - chunk.line, doubtful: !parsed.problems.is_empty() };
        self.outcome.problems.extend(parsed.problems.into_iter().map(|problem| (key.clone(), problem)));
        self.give(name, line, &given, Some(parsed.object));
        Ok(Some(given))
    }

    /// A version of an object stands; the later one counts. Without the object it is the one that stood before.
    fn give(&mut self, file: &Arc<str>, line: usize, given: &Given, object: Option<Object>) {
        let key = &given.key;
        if given.doubtful {
            self.outcome.doubtful.push(key.clone());
        }
        let held = Held { hash: given.hash, file: file.clone(), line };
        if let Some(Held { file: other, line: there, .. }) = self.now.held.insert(key.clone(), held) {
            let message = format!("{key} stands here and at {other}:{there}; this one counts");
            self.outcome.duplicates.push(ManifestError { file: file.to_string(), line, message });
        }
        match object {
            Some(object) if !self.stood(given) => {
                self.order += 1;
                self.changed.insert(key.clone(), (self.order, object));
            }
            _ => {
                self.changed.remove(key);
            }
        }
    }

    /// A file cannot be read at all.
    fn broken(&mut self, name: &Arc<str>, line: usize, message: &str) {
        self.outcome.errors.push(ManifestError { file: name.to_string(), line, message: message.to_owned() });
        self.broken.insert(name.clone());
    }

    fn hash(&self, value: &Value) -> u64 {
        struct Sink<H>(H);
        impl<H: Hasher> io::Write for Sink<H> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.write(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Sink(self.now.hasher.build_hasher());
        serde_json::to_writer(&mut sink, value)
            .expect("a JSON value is written to a sink that takes everything");
        sink.0.finish()
    }

    /// What could be read last stays where it cannot be read now.
    fn keep(&mut self) {
        for (key, file) in &self.unreadable {
            let Some(held) = self.before.held.get(key) else { continue };
            if held.file == *file || !self.now.held.contains_key(key) {
                self.now.held.insert(key.clone(), held.clone());
                self.changed.remove(key);
            }
        }
        for (key, held) in &self.before.held {
            if self.broken.contains(&held.file) && !self.now.held.contains_key(key) {
                self.now.held.insert(key.clone(), held.clone());
            }
        }
    }

    fn finish(mut self) -> (Ledger, Outcome) {
        self.keep();
        let Reading { before, mut now, changed, unreadable, broken, mut outcome, .. } = self;
        outcome.unreadable = unreadable.into_iter().map(|(key, _)| key).collect();
        if !before.complete {
            now.unread.extend(outcome.unreadable.iter().filter(|key| !now.held.contains_key(key)).cloned());
            if !broken.is_empty() {
                now.unread.extend(Kind::ALL.map(ObjectKey::unnamed));
            }
        }
        now.complete = now.unread.is_empty();
        let kept = now.unread.difference(&before.unread).cloned().map(Event::Unreadable);
        let mut changed: Vec<(usize, Object)> = changed.into_values().collect();
        changed.sort_by_key(|(order, _)| *order);
        let applied = changed.into_iter().map(|(_, object)| Event::Applied(object));
        if before.listed {
            let known = before.held.keys().chain(&before.unread);
            let mut gone: Vec<ObjectKey> = known
                .filter(|key| !now.held.contains_key(key) && !now.unread.contains(key))
                .cloned()
                .collect();
            gone.sort();
            outcome.events.extend(gone.into_iter().map(Event::Deleted));
            outcome.events.extend(kept);
            outcome.events.extend(applied);
        } else {
            outcome.events.extend(Kind::ALL.map(Event::ListStarted));
            outcome.events.extend(kept);
            outcome.events.extend(applied);
            outcome.events.extend(Kind::ALL.map(Event::Listed));
        }
        (now, outcome)
    }
}
