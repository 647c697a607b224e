//! inotify watches of a file, or of the files of a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// A watch of the folders on which a path depends.
pub(crate) struct FileWatch {
    path: PathBuf,
    inotify: Option<RecommendedWatcher>,
    has_warned: bool,
}

impl FileWatch {
    /// A watch that notifies `changed` when the path changes, or a file of its folder for which `is_watched_file` returns
    /// true. It watches nothing before [`FileWatch::watch_paths`] is called.
    pub(crate) fn new(path: PathBuf, is_watched_file: fn(&Path) -> bool, changed: Arc<Notify>) -> Self {
        let root = path.clone();
        let inotify = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may be a lost event.
            if event.map_or(true, |event| is_relevant(&root, is_watched_file, &event)) {
                changed.notify_one();
            }
        });
        let mut watcher = FileWatch { path, inotify: None, has_warned: false };
        match inotify {
            Ok(inotify) => watcher.inotify = Some(inotify),
            Err(error) => watcher.warn(&error),
        }
        watcher
    }

    /// Watches the folders of the path, and returns true if that succeeded for all. It has to be called again after each
    /// change, as a folder may have been replaced.
    pub(crate) fn watch_paths(&mut self) -> bool {
        let Some(inotify) = &mut self.inotify else { return false };
        for folder in folders(&self.path) {
            if let Err(error) = inotify.watch(&folder, RecursiveMode::NonRecursive) {
                if folder.exists() {
                    self.warn(&error);
                }
                return false;
            }
        }
        true
    }

    fn warn(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                "cannot watch {} with inotify: {error}; polling it twice a second (fs.inotify.max_user_instances or max_user_watches may be too small)",
                self.path.display()
            );
        }
    }
}

/// Returns the folders in which a change of the path may occur.
fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    // The path itself may be replaced or be a link; its target may change too.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let content = if real.is_dir() { Some(real) } else { parent(&real) };
    let mut folders: Vec<PathBuf> = parent(path).into_iter().chain(content).collect();
    folders.dedup();
    folders
}

/// Returns true if an event may have changed the content of the files.
fn is_relevant(root: &Path, is_watched_file: fn(&Path) -> bool, event: &notify::Event) -> bool {
    let is_read =
        matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    let ours = |path: &PathBuf| {
        let name = path.file_name();
        // `..data` is the link by which a mounted ConfigMap is replaced as a whole.
        is_watched_file(path)
            || name == root.file_name()
            || name.is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
    };
    event.need_rescan() || (!is_read && (event.paths.is_empty() || event.paths.iter().any(ours)))
}
