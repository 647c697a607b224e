//! Addresses that pods of a previous network plugin still have.
//!
//! The reference plugin `host-local`, which flannel, kindnet and the `bridge` configuration of many distributions use, keeps a file
//! `DIR/NETWORK/ADDRESS` for each address; its first line is the container ID. After a change of the network, pods that were started
//! before keep their addresses until they end, but the runtime no longer calls the plugin that would remove the files.
//!
//! So an address with such a file is the last choice: it is allocated only if no other one is free and its container has ended.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files;

/// Age below which a file is never taken for one of a container that has ended: the runtime creates the container's cgroup after
/// its network.
const MIN_AGE: Duration = Duration::from_secs(300);

/// Depth of the cgroup hierarchy that is searched. `kubepods.slice/kubepods-burstable.slice/kubepods-…-pod….slice/…` has four levels;
/// a node that itself is a container has more.
const MAX_CGROUP_DEPTH: usize = 12;

/// Folders of `host-local`: each contains a folder per network.
#[derive(Debug)]
pub(super) struct OtherPlugins {
    directories: Vec<PathBuf>,
}

/// The folders of the networks, which do not change during a search.
#[derive(Debug)]
pub(super) struct Networks {
    folders: Vec<PathBuf>,
}

impl OtherPlugins {
    pub(super) fn new(directories: &[PathBuf]) -> Self {
        Self { directories: directories.to_vec() }
    }

    /// Returns the networks of all folders.
    pub(super) fn networks(&self) -> io::Result<Networks> {
        let mut folders = Vec::new();
        for directory in &self.directories {
            files::for_each_name(directory, |name| folders.push(directory.join(name)))?;
        }
        Ok(Networks { folders })
    }
}

impl Networks {
    /// Returns the file by which a network holds an address.
    pub(super) fn file(&self, address: IpAddr) -> io::Result<Option<PathBuf>> {
        for folder in &self.folders {
            let path = folder.join(address.to_string());
            match fs::symlink_metadata(&path) {
                Ok(_) => return Ok(Some(path)),
                // A file instead of a folder.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Calls a function with each file of an address.
    pub(super) fn for_each_address(&self, mut function: impl FnMut(IpAddr, PathBuf)) -> io::Result<()> {
        for folder in &self.folders {
            let result = files::for_each_name(folder, |name| {
                if let Ok(address) = name.parse() {
                    function(address, folder.join(name));
                }
            });
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotADirectory => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The names of all cgroups of this node, by which running containers are recognised: all runtimes put the container ID into the
/// name of its cgroup.
#[derive(Debug)]
pub(super) struct Containers {
    cgroups: HashSet<String>,
}

impl Containers {
    /// Reads the cgroup hierarchy; `None` if it cannot be seen, e.g. with another sysfs mounted.
    pub(super) fn read() -> Option<Self> {
        Self::read_from(Path::new("/sys/fs/cgroup"))
    }

    fn read_from(root: &Path) -> Option<Self> {
        let mut cgroups = HashSet::new();
        let mut folders = vec![(root.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // The cgroup of a process that has just ended.
                Err(_) if depth > 0 => continue,
                Err(_) => return None,
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if let Some(name) = entry.file_name().to_str() {
                    cgroups.insert(name.to_owned());
                }
                if depth < MAX_CGROUP_DEPTH {
                    folders.push((entry.path(), depth + 1));
                }
            }
        }
        // A node that runs a container runtime has cgroups. An empty folder is a mount that hides them.
        (!cgroups.is_empty()).then_some(Self { cgroups })
    }

    /// Returns whether the container of a file of `host-local` has ended. A file that cannot be read or has no container ID belongs to
    /// a container that may run.
    pub(super) fn has_ended(&self, file: &Path, now: SystemTime) -> bool {
        let Ok(metadata) = fs::metadata(file) else { return false };
        let is_old =
            metadata.modified().is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age >= MIN_AGE));
        if !is_old {
            return false;
        }
        let Ok(Some(content)) = files::read(file) else { return false };
        let text = String::from_utf8_lossy(&content);
        let container_id = text.lines().next().unwrap_or_default().trim();
        // Shorter IDs could be part of unrelated names.
        container_id.len() >= 12 && !self.cgroups.iter().any(|name| name.contains(container_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_files_of_containers_without_cgroup_have_ended() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("cgroup");
        fs::create_dir_all(root.join("kubepods.slice/pod1.slice/cri-containerd-aaaaaaaaaaaaaaaa.scope"))
            .expect("folders");
        let containers = Containers::read_from(&root).expect("cgroups");
        let later = SystemTime::now() + MIN_AGE + Duration::from_secs(1);
        for (content, has_ended) in [
            ("aaaaaaaaaaaaaaaa\r\neth0", false),
            ("bbbbbbbbbbbbbbbb\r\neth0", true),
            // As older versions of host-local write it.
            ("bbbbbbbbbbbbbbbb", true),
            ("", false),
            ("\r\neth0", false),
            ("short", false),
        ] {
            let file = folder.path().join("10.0.0.5");
            fs::write(&file, content).expect("a file");
            assert_eq!(containers.has_ended(&file, later), has_ended, "{content:?}");
            assert!(!containers.has_ended(&file, SystemTime::now()), "{content:?} is young");
        }
        assert!(!containers.has_ended(&folder.path().join("missing"), later));
        assert!(Containers::read_from(&folder.path().join("missing")).is_none());
        let empty = tempfile::tempdir().expect("a temporary folder");
        assert!(Containers::read_from(empty.path()).is_none(), "hidden by another mount");
    }
}
