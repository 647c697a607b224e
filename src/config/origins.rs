//! Origins of the settings, so that a message can name the flag, or the file and line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::{Origin, Warning};
use super::setting::Setting;
use super::setting_table::settings;

/// Format of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// A `KubeProxyConfiguration`, in YAML or JSON.
    KubeProxy,
    /// Portcullis TOML.
    Toml,
}

impl FileFormat {
    /// Returns the path of a setting in a file of this format.
    pub(super) fn field(self, setting: &Setting) -> Option<&'static str> {
        match self {
            Self::KubeProxy => setting.yaml,
            Self::Toml => setting.toml,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "YAML",
            Self::Toml => "TOML",
        }
    }
}

/// Path and format of the configuration file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) format: FileFormat,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Flag(&'static str),
    Line(usize),
}

/// Origin of each setting, by [`Setting::id`].
#[derive(Debug, Default)]
pub(super) struct Origins {
    file: Option<File>,
    places: HashMap<&'static str, Place>,
    warnings: Vec<Warning>,
}

impl Origins {
    pub(super) fn set_file(&mut self, path: &Path, format: FileFormat) {
        self.file = Some(File { path: path.to_owned(), format });
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Adds a warning about the file.
    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    pub(super) fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    pub(super) fn by_flag(&mut self, id: &'static str, flag: &'static str) {
        self.places.insert(id, Place::Flag(flag));
    }

    pub(super) fn by_file(&mut self, id: &'static str, line: usize) {
        self.places.insert(id, Place::Line(line));
    }

    pub(super) fn is_default(&self, id: &'static str) -> bool {
        !self.places.contains_key(id)
    }

    pub(super) fn is_flag(&self, id: &'static str) -> bool {
        matches!(self.places.get(id), Some(Place::Flag(_)))
    }

    /// Returns the origin of the setting with this id.
    pub(super) fn origin(&self, id: &'static str) -> Origin {
        match (self.places.get(id), &self.file) {
            (Some(Place::Flag(flag)), _) => Origin::Flag(flag),
            (Some(Place::Line(line)), Some(file)) => Origin::File {
                path: file.path.clone(),
                line: *line,
                field: self.field(id, file.format).to_owned(),
            },
            (_, Some(file)) => Origin::Default(self.field(id, file.format)),
            (_, None) => Origin::Default(id),
        }
    }

    fn field(&self, id: &'static str, format: FileFormat) -> &'static str {
        settings().find(|setting| setting.id() == id).and_then(|setting| format.field(setting)).unwrap_or(id)
    }
}
