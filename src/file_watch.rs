//! Hears from the kernel (inotify) that a file, or the files of a folder, have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Watches the folders on which a path's files depend.
pub(crate) struct FileWatch {
    path: PathBuf,
    inotify: Option<RecommendedWatcher>,
    has_warned: bool,
}

impl FileWatch {
    /// Gives word by `changed` when the path itself is another, or a file in its folder that `is_watched_file`. It watches nothing
    /// before [`FileWatch::watch_paths`].
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

    /// Watches what the path leads to now; whether that is all that it depends on. To be called again
    /// after each change, because a folder that was replaced is another folder.
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
                "no inotify for {}: {error}; looking twice a second instead (fs.inotify.max_user_instances and max_user_watches may be too small)",
                self.path.display()
            );
        }
    }
}

/// The folders in which a change of the path can show.
fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    // Its own name, which may be replaced or be a link, and what that leads to.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let content = if real.is_dir() { Some(real) } else { parent(&real) };
    let mut folders: Vec<PathBuf> = parent(path).into_iter().chain(content).collect();
    folders.dedup();
    folders
}

/// Whether an event can have changed what the files say.
fn is_relevant(root: &Path, is_watched_file: fn(&Path) -> bool, event: &notify::Event) -> bool {
    let only_looked_at =
        matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    let ours = |path: &PathBuf| {
        let name = path.file_name();
        // `..data` is the link by which a mounted ConfigMap is replaced as a whole.
        is_watched_file(path)
            || name == root.file_name()
            || name.is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
    };
    event.need_rescan() || (!only_looked_at && (event.paths.is_empty() || event.paths.iter().any(ours)))
}
