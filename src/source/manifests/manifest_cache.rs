//! A cache of the objects of manifests, from which each reading derives events.
//!
//! The objects themselves are in the index; the cache has only their hashes, to find those that changed. Documents are
//! identified by a hash of their text, so that only edited documents are parsed again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;

use portcullis_cluster::manifest::{self, Chunk, Document, ManifestError};
use portcullis_cluster::{Event, Kind, Object, ObjectKey, Problem};
use serde_json::Value;

use super::file_errors::FileErrors;
use super::files::{Listing, PathError, list};
use crate::bounded_file;

/// The largest file of manifests, in bytes: 10,000 EndpointSlices of 100 endpoints take 200 MB.
const MAX_FILE: usize = 512 << 20;

/// The objects as last read.
#[derive(Debug, Default)]
pub(super) struct ManifestCache {
    hasher: RandomState,
    /// Readable documents, by the hash of their text.
    documents: HashMap<u64, Arc<[CachedObject]>>,
    /// The current version of each object.
    current: HashMap<ObjectKey, CurrentVersion>,
    /// Every kind has been listed.
    listed: bool,
    /// Objects of which no version could be read since the start. A document whose kind cannot be read counts as an unnamed
    /// object of every kind.
    unread: BTreeSet<ObjectKey>,
    /// Every object could be read at one time. An object that cannot be read later was known before, or is new.
    complete: bool,
}

/// An object of a document.
#[derive(Clone, Debug)]
struct CachedObject {
    key: ObjectKey,
    hash: u64,
    /// Its line, relative to the document.
    line: usize,
    /// It has an invalid field, which is ignored.
    with_problems: bool,
}

/// The current version of an object.
#[derive(Clone, Debug)]
struct CurrentVersion {
    hash: u64,
    file: Arc<str>,
    line: usize,
}

/// The result of reading the manifests.
#[derive(Debug, Default)]
pub(super) struct ReadResult {
    /// The changes.
    pub(super) events: Vec<Event>,
    /// Documents that cannot be read, by file.
    pub(super) errors: Vec<FileErrors>,
    /// Invalid fields of objects that changed.
    pub(super) problems: Vec<(ObjectKey, Problem)>,
    /// Objects with more than one manifest, by file.
    pub(super) duplicates: Vec<FileErrors>,
    /// `apiVersion` and `kind` of objects of unused kinds, in documents that changed.
    pub(super) ignored: BTreeSet<String>,
    /// Objects that cannot be parsed.
    pub(super) unreadable: Vec<ObjectKey>,
    /// Objects with an invalid field, which is ignored.
    pub(super) with_problems: Vec<ObjectKey>,
    /// Why sub-folders and kustomizations are not read.
    pub(super) skipped: Vec<String>,
}

impl ManifestCache {
    /// Reads all manifests and updates the cache.
    ///
    /// # Errors
    /// The path cannot be read; the cache is unchanged.
    pub(super) fn read(&mut self, path: &Path) -> Result<ReadResult, PathError> {
        let Listing { files, unreadable, skipped } = list(path)?;
        let mut pass = ReadPass::new(self);
        pass.result.skipped = skipped;
        for (file, error) in unreadable {
            pass.broken(&file.to_string_lossy().into(), 1, &error.to_string());
        }
        for file in files {
            let name: Arc<str> = file.to_string_lossy().into();
            match text_of(&file) {
                Ok(text) if text.is_empty() && pass.had_objects(&name) => {
                    // As after a write to a full disk.
                    pass.broken(&name, 1, "it is empty; delete the file to remove its objects");
                }
                Ok(text) => pass.file(&name, &text),
                // It was deleted after the folder was listed.
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

/// Reads a file of manifests.
///
/// # Errors
/// The file cannot be read, is too large, or is not UTF-8.
pub(crate) fn read_manifest_file(file: &Path) -> io::Result<String> {
    bounded_file::read_to_string(file, MAX_FILE)
}

struct ReadError {
    error: io::Error,
    line: usize,
}

fn text_of(file: &Path) -> Result<String, ReadError> {
    let bytes = bounded_file::read_regular(file, MAX_FILE).map_err(|error| ReadError { error, line: 1 })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        ReadError { error: io::Error::other("invalid UTF-8"), line }
    })
}

/// A reading of all manifests in progress.
struct ReadPass<'a> {
    before: &'a mut ManifestCache,
    now: ManifestCache,
    /// Changed objects, with their order.
    changed: HashMap<ObjectKey, (usize, Object)>,
    order: usize,
    /// Objects that cannot be parsed, and their files.
    unreadable: Vec<(ObjectKey, Arc<str>)>,
    /// Files with documents of which the key cannot be read.
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
        let chunks = match manifest::split(name, text) {
            Ok(chunks) => chunks,
            Err(error) => return self.broken(name, error.line, &error.message),
        };
        for chunk in chunks {
            let id = self.now.hasher.hash_one(chunk.text);
            match self.before.documents.get(&id) {
                Some(objects) if objects.iter().all(|object| self.is_current(object)) => {
                    let objects = objects.clone();
                    objects
                        .iter()
                        .for_each(|object| self.insert(name, chunk.line + object.line, object, None));
                    self.now.documents.insert(id, objects);
                }
                _ => self.chunk(name, chunk, id),
            }
        }
    }

    /// Returns true if a file had objects before.
    fn had_objects(&self, name: &Arc<str>) -> bool {
        self.before.current.values().any(|current| current.file == *name)
    }

    /// Returns true if this version was the current one before.
    fn is_current(&self, object: &CachedObject) -> bool {
        self.before.current.get(&object.key).is_some_and(|current| current.hash == object.hash)
    }

    fn chunk(&mut self, name: &Arc<str>, chunk: Chunk<'_>, id: u64) {
        let mut objects = Some(Vec::new());
        for document in chunk.documents(name) {
            if document.is_err() {
                self.broken.insert(name.clone());
            }
            match document.and_then(|document| self.document(name, chunk, document)) {
                Ok(Some(cached)) => objects.iter_mut().for_each(|all| all.push(cached.clone())),
                Ok(None) => {}
                Err(error) => {
                    FileErrors::add(&mut self.result.errors, error);
                    objects = None;
                }
            }
        }
        if let Some(all) = objects {
            self.now.documents.insert(id, all.into());
        }
    }

    /// Reads one object; `None` if it is of an unused kind.
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
        let cached = CachedObject {
            key: key.clone(),
            hash,
            line: line - chunk.line,
            with_problems: !parsed.problems.is_empty(),
        };
        self.result.problems.extend(parsed.problems.into_iter().map(|problem| (key.clone(), problem)));
        self.insert(name, line, &cached, Some(parsed.object));
        Ok(Some(cached))
    }

    /// Sets the current version of an object, replacing one of an earlier document. Without `object` it is unchanged.
    fn insert(&mut self, file: &Arc<str>, line: usize, cached: &CachedObject, object: Option<Object>) {
        let key = &cached.key;
        if cached.with_problems {
            self.result.with_problems.push(key.clone());
        }
        let current = CurrentVersion { hash: cached.hash, file: file.clone(), line };
        if let Some(CurrentVersion { file: other, line: there, .. }) =
            self.now.current.insert(key.clone(), current)
        {
            let message = format!("{key} is defined here and at {other}:{there}; using this one");
            let duplicate = ManifestError { file: file.to_string(), line, message };
            FileErrors::add(&mut self.result.duplicates, duplicate);
        }
        match object {
            Some(object) if !self.is_current(cached) => {
                self.order += 1;
                self.changed.insert(key.clone(), (self.order, object));
            }
            _ => {
                self.changed.remove(key);
            }
        }
    }

    /// Records a file that cannot be read.
    fn broken(&mut self, name: &Arc<str>, line: usize, message: &str) {
        let error = ManifestError { file: name.to_string(), line, message: message.to_owned() };
        FileErrors::add(&mut self.result.errors, error);
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
        serde_json::to_writer(&mut sink, value).expect("writing a JSON value to a hasher cannot fail");
        sink.0.finish()
    }

    /// Keeps the last readable version of objects that cannot be read now.
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
