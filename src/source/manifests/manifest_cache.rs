//! What the manifests have object_ref, and what another pass changes of that.
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

/// What has been object_ref so far.
#[derive(Debug, Default)]
pub(super) struct ManifestCache {
    hasher: RandomState,
    /// Readable documents, by the hash of their text.
    documents: HashMap<u64, Arc<[CachedObject]>>,
    /// What stands, by its key.
    current: HashMap<ObjectKey, CurrentVersion>,
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
struct CachedObject {
    key: ObjectKey,
    hash: u64,
    /// Its line, counted from that of the document.
    line: usize,
    /// A field of it is ignored.
    with_problems: bool,
}

/// The version of an object that stands.
#[derive(Clone, Debug)]
struct CurrentVersion {
    hash: u64,
    file: Arc<str>,
    line: usize,
}

/// What a pass brought.
#[derive(Debug, Default)]
pub(super) struct ReadResult {
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
    pub(super) with_problems: Vec<ObjectKey>,
    /// Why sub-folders and kustomizations are not read.
    pub(super) skipped: Vec<String>,
}

impl ManifestCache {
    /// Reads everything, and notes it.
    ///
    /// # Errors
    /// The path cannot be read; nothing has changed then.
    pub(super) fn read(&mut self, path: &Path) -> Result<ReadResult, PathError> {
        let Listing { files, skipped } = list(path)?;
        let mut pass = ReadPass::new(self);
        pass.result.skipped = skipped;
        for file in files {
            let name: Arc<str> = file.to_string_lossy().into();
            match text_of(&file) {
                Ok(text) => pass.file(&name, &text),
                // It went between the look at the folder and now.
                Err(ReadError { error, .. }) if error.kind() == io::ErrorKind::NotFound && file != path => {}
                Err(ReadError { error, .. }) if file == path => {
                    return Err(PathError { path: path.to_owned(), source: error });
                }
                Err(ReadError { error, line }) => pass.broken(&name, line, &error.to_string()),
            }
        }
        let (cache, result) = pass.finish();
        *self = cache;
        Ok(result)
    }
}

struct ReadError {
    error: io::Error,
    line: usize,
}

fn text_of(file: &Path) -> Result<String, ReadError> {
    let bytes = fs::read(file).map_err(|error| ReadError { error, line: 1 })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        ReadError { error: io::Error::other("this is no UTF-8 text"), line }
    })
}

/// A pass under way.
struct ReadPass<'a> {
    before: &'a mut ManifestCache,
    now: ManifestCache,
    /// Objects that are not as they were, and the order in which they came.
    changed: HashMap<ObjectKey, (usize, Object)>,
    order: usize,
    /// Objects that cannot be read, and the files that have them.
    unreadable: Vec<(ObjectKey, Arc<str>)>,
    /// Files with documents of which not even the key can be read.
    broken: HashSet<Arc<str>>,
    result: ReadResult,
}

impl<'a> ReadPass<'a> {
    fn new(before: &'a mut ManifestCache) -> Self {
        let now = ManifestCache { hasher: before.hasher.clone(), listed: true, ..ManifestCache::default() };
        ReadPass {
            before,
            now,
            changed: HashMap::new(),
            order: 0,
            unreadable: Vec::new(),
            broken: HashSet::new(),
            result: ReadResult::default(),
        }
    }

    fn file(&mut self, name: &Arc<str>, text: &str) {
        for chunk in manifest::split(name, text) {
            let id = self.now.hasher.hash_one(chunk.text);
            match self.before.documents.get(&id) {
                Some(object_ref) if object_ref.iter().all(|object_ref| self.is_current(object_ref)) => {
                    let object_ref = object_ref.clone();
                    object_ref.iter().for_each(|object_ref| {
                        self.insert(name, chunk.line + object_ref.line, object_ref, None)
                    });
                    self.now.documents.insert(id, object_ref);
                }
                _ => self.chunk(name, chunk, id),
            }
        }
    }

    /// Whether this very version is_current before.
    fn is_current(&self, object_ref: &CachedObject) -> bool {
        self.before.current.get(&object_ref.key).is_some_and(|current| current.hash == object_ref.hash)
    }

    fn chunk(&mut self, name: &Arc<str>, chunk: Chunk<'_>, id: u64) {
        let mut objects = Some(Vec::new());
        for document in chunk.documents(name) {
            if document.is_err() {
                self.broken.insert(name.clone());
            }
            match document.and_then(|document| self.document(name, chunk, document)) {
                Ok(Some(object_ref)) => objects.iter_mut().for_each(|all| all.push(object_ref.clone())),
                Ok(None) => {}
                Err(error) => {
                    self.result.errors.push(error);
                    objects = None;
                }
            }
        }
        if let Some(all) = objects {
            self.now.documents.insert(id, all.into());
        }
    }

    /// Takes in one object; `None` if it is of a kind that we do not use.
    fn document(
        &mut self,
        name: &Arc<str>,
        chunk: Chunk<'_>,
        document: Document,
    ) -> Result<Option<CachedObject>, ManifestError> {
        let Document { line, kind, value } = document;
        let Some(kind) = kind else {
            let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
            self.result.ignored.insert(format!("{} {}", text("apiVersion"), text("kind")));
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
        let object_ref = CachedObject {
            key: key.clone(),
            hash,
            line: line - chunk.line,
            with_problems: !parsed.problems.is_empty(),
        };
        self.result.problems.extend(parsed.problems.into_iter().map(|problem| (key.clone(), problem)));
        self.insert(name, line, &object_ref, Some(parsed.object));
        Ok(Some(object_ref))
    }

    /// A version of an object stands; the later one counts. Without the object it is the one that is_current before.
    fn insert(&mut self, file: &Arc<str>, line: usize, object_ref: &CachedObject, object: Option<Object>) {
        let key = &object_ref.key;
        if object_ref.with_problems {
            self.result.with_problems.push(key.clone());
        }
        let current = CurrentVersion { hash: object_ref.hash, file: file.clone(), line };
        if let Some(CurrentVersion { file: other, line: there, .. }) =
            self.now.current.insert(key.clone(), current)
        {
            let message = format!("{key} stands here and at {other}:{there}; this one counts");
            self.result.duplicates.push(ManifestError { file: file.to_string(), line, message });
        }
        match object {
            Some(object) if !self.is_current(object_ref) => {
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
        self.result.errors.push(ManifestError { file: name.to_string(), line, message: message.to_owned() });
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
    fn keep_last_readable(&mut self) {
        for (key, file) in &self.unreadable {
            let Some(current) = self.before.current.get(key) else { continue };
            if current.file == *file || !self.now.current.contains_key(key) {
                self.now.current.insert(key.clone(), current.clone());
                self.changed.remove(key);
            }
        }
        for (key, current) in &self.before.current {
            if self.broken.contains(&current.file) && !self.now.current.contains_key(key) {
                self.now.current.insert(key.clone(), current.clone());
            }
        }
    }

    fn finish(mut self) -> (ManifestCache, ReadResult) {
        self.keep_last_readable();
        let ReadPass { before, mut now, changed, unreadable, broken, mut result, .. } = self;
        result.unreadable = unreadable.into_iter().map(|(key, _)| key).collect();
        if !before.complete {
            now.unread.extend(result.unreadable.iter().filter(|key| !now.current.contains_key(key)).cloned());
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
            let known = before.current.keys().chain(&before.unread);
            let mut gone: Vec<ObjectKey> = known
                .filter(|key| !now.current.contains_key(key) && !now.unread.contains(key))
                .cloned()
                .collect();
            gone.sort();
            result.events.extend(gone.into_iter().map(Event::Deleted));
            result.events.extend(kept);
            result.events.extend(applied);
        } else {
            result.events.extend(Kind::ALL.map(Event::ListStarted));
            result.events.extend(kept);
            result.events.extend(applied);
            result.events.extend(Kind::ALL.map(Event::Listed));
        }
        (now, result)
    }
}
