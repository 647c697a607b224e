//! The folder of a running lab: its manifests, the daemons' logs, and what it is made of.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a lab is made of, for processes that did not make it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabState {
    /// The lab's name.
    pub id: String,
    /// What the names of its namespaces begin with.
    pub prefix: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The process that owns it.
    pub owner: u32,
    /// What can be entered (`namespace/pod`, a node's name, `outside`), and its network namespace.
    pub places: Vec<(String, String)>,
}

/// The longest name of a lab.
const MAX_NAME: usize = 32;

/// The folder of all labs: below /run for root, else below `$XDG_RUNTIME_DIR` or the folder for temporary files.
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

/// A name that no other lab of this machine has: a few letters and digits.
pub(crate) fn new_id() -> String {
    let mut bytes = [0_u8; 4];
    // SAFETY: the pointer and the length describe `bytes`; a short answer leaves zeroes, which the pid makes up for.
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

/// Checks a name that a user gives to a lab: it becomes part of the names of its namespaces.
///
/// # Errors
/// When it is not a DNS label.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = name.starts_with('-') || name.ends_with('-');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_inner) && !edges {
        return Ok(());
    }
    Err(format!("expected up to {MAX_NAME} lower-case letters, digits and inner \"-\""))
}

/// What the names of a lab's namespaces begin with. No lab's prefix is the beginning of another's: names have no `_`.
pub(crate) fn prefix(id: &str) -> String {
    format!("pcl-{}-", id.replace('-', "_"))
}

/// Writes a file whole: readers see the old text or the new, never a part.
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

impl LabState {
    /// The labs that run on this machine, oldest first. A folder without a state is a lab that is still being made.
    ///
    /// # Errors
    /// When the folder of the labs cannot be read.
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

    /// The lab of that name. Without a name, the only lab that `lab up` made.
    ///
    /// # Errors
    /// When there is none, or without a name several.
    pub fn find(id: Option<&str>) -> Result<Self> {
        let mut labs = Self::all()?;
        let ids: Vec<String> = labs.iter().map(|lab| lab.id.clone()).collect();
        let Some(id) = id else {
            labs.retain(LabState::is_kept);
            let kept: Vec<String> = labs.iter().map(|lab| lab.id.clone()).collect();
            return match labs.pop() {
                Some(only) if labs.is_empty() => Ok(only),
                Some(_) => Err(Error::SeveralLabs(kept.join(", "))),
                None => Err(Error::NoLab),
            };
        };
        let named = labs.into_iter().find(|lab| lab.id == id);
        named.ok_or_else(|| Error::unknown("lab", id, &ids))
    }

    /// Whether `lab up` made it.
    pub fn is_kept(&self) -> bool {
        self.folder.join("control").exists()
    }

    /// Whether the process that owns it is alive.
    pub fn is_owned(&self) -> bool {
        Path::new("/proc").join(self.owner.to_string()).exists()
    }

    /// The names of its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        let names = self.places.iter().map(|(name, _)| name.as_str());
        names.filter(|name| !name.contains('/') && *name != crate::running::OUTSIDE)
    }

    /// How many pods run in it.
    pub fn pods(&self) -> usize {
        self.places.iter().filter(|(name, _)| name.contains('/')).count()
    }

    /// The file with the log of a node's daemon.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn log_of(&self, node: &str) -> Result<PathBuf> {
        let nodes: Vec<String> = self.nodes().map(str::to_owned).collect();
        match nodes.iter().any(|name| name == node) {
            true => Ok(self.folder.join("logs").join(format!("{node}.log"))),
            false => Err(Error::unknown("node", node, &nodes)),
        }
    }

    /// The network namespace of a pod (`namespace/name`, or `name` in `default`), a node, or `outside`.
    ///
    /// # Errors
    /// When there is no such place; the message lists those that there are.
    pub fn netns_of(&self, place: &str) -> Result<&str> {
        let in_default = format!("default/{place}");
        let found = self.places.iter().find(|(name, _)| name == place);
        let found = found.or_else(|| self.places.iter().find(|(name, _)| *name == in_default));
        let (_, netns) = found
            .ok_or_else(|| Error::unknown("pod or node", place, self.places.iter().map(|(name, _)| name)))?;
        Ok(netns)
    }

    pub(crate) fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("a state has only text for keys");
        replace_file(&self.folder.join("lab.json"), &text)
    }
}
