//! Records of running labs, for processes other than their owners: `lab.json` in each lab's folder, which also holds the
//! manifests and the daemons' logs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::daemon::DaemonSpec;
use crate::error::{Error, Result};

/// Name, owner and network namespaces of a running lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabRecord {
    /// The lab's name.
    pub id: String,
    /// Prefix of the names of its network namespaces.
    pub prefix: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Id of the process that owns it.
    pub owner: u32,
    /// Names of pods (`namespace/pod`), nodes and `outside`, each with its network namespace.
    pub namespaces: Vec<(String, String)>,
    /// The daemons that run on its nodes.
    #[serde(default)]
    pub daemon: Option<DaemonSpec>,
}

/// Maximum length of a lab's name.
const MAX_NAME: usize = 32;

/// Returns the folder of all labs: below /run for root, else below `$XDG_RUNTIME_DIR` or the folder for temporary files.
pub(crate) fn root() -> PathBuf {
    let run = Path::new("/run");
    // SAFETY: geteuid takes nothing and cannot fail.
    let base = if unsafe { libc::geteuid() } == 0 && run.is_dir() {
        run.to_owned()
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
    };
    base.join("portcullis-lab")
}

/// Returns a name for a lab that is unique on this machine: a few letters and digits.
pub(crate) fn new_id() -> String {
    let mut bytes = [0_u8; 4];
    // SAFETY: the pointer and the length describe `bytes`. A short read leaves zeroes; the pid still makes it unique.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    let mut number = u64::from(std::process::id()) << 24 | u64::from(u32::from_ne_bytes(bytes) >> 8);
    let mut id = String::new();
    while number > 0 {
        let digit = u32::try_from(number % 36).expect("a remainder of 36 is small");
        id.push(char::from_digit(digit, 36).expect("a remainder of 36 is a digit"));
        number /= 36;
    }
    id
}

/// Validates a lab name, which becomes part of the names of the lab's network namespaces.
///
/// # Errors
/// The name is not a DNS label of at most 32 characters.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = name.starts_with('-') || name.ends_with('-');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_inner) && !edges {
        return Ok(());
    }
    Err(format!("expected up to {MAX_NAME} lower-case letters, digits and inner \"-\""))
}

/// Returns the prefix of the names of a lab's namespaces. No lab's prefix is a prefix of another's: names have no `_`.
pub(crate) fn prefix(id: &str) -> String {
    format!("pcl-{}-", id.replace('-', "_"))
}

/// Replaces a file atomically.
pub(crate) fn replace_file(path: &Path, text: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let write = || {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(text)?;
        fs::rename(&fresh, path)
    };
    write().map_err(Error::file("cannot write", path))
}

impl LabRecord {
    /// Returns the labs that run on this machine, oldest first. Labs that are still being built have no record yet.
    ///
    /// # Errors
    /// The folder of the labs cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        let root = root();
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("cannot read", root)(error)),
        };
        let mut labs = Vec::new();
        for entry in entries.flatten() {
            let file = entry.path().join("lab.json");
            let Ok(text) = fs::read(&file) else { continue };
            let written = fs::metadata(&file).and_then(|about| about.modified()).ok();
            if let Ok(state) = serde_json::from_slice::<Self>(&text) {
                labs.push((written, state));
            }
        }
        labs.sort_by_key(|(written, _)| *written);
        Ok(labs.into_iter().map(|(_, state)| state).collect())
    }

    /// Returns the lab with a name, or without a name the only lab started by `lab up`.
    ///
    /// # Errors
    /// No such lab, or no name and several labs.
    pub fn find(id: Option<&str>) -> Result<Self> {
        let mut labs = Self::all()?;
        let ids: Vec<String> = labs.iter().map(|lab| lab.id.clone()).collect();
        let Some(id) = id else {
            labs.retain(LabRecord::is_persistent);
            let kept: Vec<String> = labs.iter().map(|lab| lab.id.clone()).collect();
            return match labs.pop() {
                Some(only) if labs.is_empty() => Ok(only),
                Some(_) => Err(Error::SeveralLabs(kept.join(", "))),
                None => Err(Error::NoLab),
            };
        };
        let named = labs.into_iter().find(|lab| lab.id == id);
        named.ok_or_else(|| Error::not_found("lab", id, &ids))
    }

    /// Returns true if the lab was started by `lab up` and outlives that command.
    pub fn is_persistent(&self) -> bool {
        self.folder.join("control").exists()
    }

    /// Returns true if the process that owns the lab is alive.
    pub fn has_live_owner(&self) -> bool {
        Path::new("/proc").join(self.owner.to_string()).exists()
    }

    /// Returns the names of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        let names = self.namespaces.iter().map(|(name, _)| name.as_str());
        names.filter(|name| !name.contains('/') && *name != crate::running::OUTSIDE)
    }

    /// Returns the number of running pods.
    pub fn pods(&self) -> usize {
        self.namespaces.iter().filter(|(name, _)| name.contains('/')).count()
    }

    /// Returns the path of the log of a node's daemon.
    ///
    /// # Errors
    /// No such node.
    pub fn log_path(&self, node: &str) -> Result<PathBuf> {
        let nodes: Vec<String> = self.nodes().map(str::to_owned).collect();
        match nodes.iter().any(|name| name == node) {
            true => Ok(self.folder.join("logs").join(format!("{node}.log"))),
            false => Err(Error::not_found("node", node, &nodes)),
        }
    }

    /// Returns the name of the network namespace of a pod (`namespace/name`, or `name` in `default`), a node, or `outside`.
    ///
    /// # Errors
    /// No such pod or node; the message lists the existing ones.
    pub fn netns_name(&self, location: &str) -> Result<&str> {
        let in_default = format!("default/{location}");
        let find = |wanted: &str| self.namespaces.iter().find(|(name, _)| name == wanted);
        let existing = || self.namespaces.iter().map(|(name, _)| name);
        let (_, netns) = find(location)
            .or_else(|| find(&in_default))
            .ok_or_else(|| Error::not_found("pod or node", location, existing()))?;
        Ok(netns)
    }

    pub(crate) fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("a record has only strings for keys");
        replace_file(&self.folder.join("lab.json"), &text)
    }
}
