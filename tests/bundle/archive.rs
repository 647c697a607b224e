//! A support archive, unpacked.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value;

/// The files of an archive by their names in its folder.
pub(crate) struct Archive {
    pub(crate) files: BTreeMap<String, String>,
}

impl Archive {
    pub(crate) fn read(bytes: &[u8]) -> Archive {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_str().expect("UTF-8").to_owned();
            let (_folder, name) = path.split_once('/').expect("all files are in one folder");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("UTF-8");
            files.insert(name.to_owned(), text);
        }
        Archive { files }
    }

    pub(crate) fn index(&self) -> Value {
        serde_json::from_str(&self.files["index.json"]).expect("JSON")
    }

    /// Returns the entry of a part in the index.
    pub(crate) fn part(&self, name: &str) -> Value {
        let index = self.index();
        let parts = index["parts"].as_array().expect("a list");
        parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("{name} in {index}")).clone()
    }
}
