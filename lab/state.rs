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

    /// The lab of that name, or the youngest one that was made to be kept.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(id: Option<&str>) -> Result<Self> {
        let labs = Self::all()?;
        let ids: Vec<String> = labs.iter().map(|lab| lab.id.clone()).collect();
        let fitting = labs.into_iter().rev().find(|lab| match id {
            Some(id) => lab.id == id,
            None => lab.folder.join("control").exists(),
        });
        fitting.ok_or_else(|| Error::unknown("lab", id.unwrap_or("(any that was kept by `lab up`)"), &ids))
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
