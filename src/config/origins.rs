//! Which setting was given where, so that a message can name the flag, or the file and line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::{Origin, Warning};
use super::setting::Setting;
use super::setting_table::settings;

/// The language of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// `KubeProxyConfiguration`, in YAML or JSON.
    KubeProxy,
    /// Ours.
    Toml,
}

impl FileFormat {
    /// A setting's path in a file of this language.
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

/// The configuration file of an invocation.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) language: FileFormat,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Flag(&'static str),
    Line(usize),
}

/// Where the settings come from, by [`Setting::id`].
#[derive(Debug, Default)]
pub(super) struct Origins {
    file: Option<File>,
    places: HashMap<&'static str, Place>,
    warnings: Vec<Warning>,
}

impl Origins {
    pub(super) fn set_file(&mut self, path: &Path, language: FileFormat) {
        self.file = Some(File { path: path.to_owned(), language });
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Adds a warning about the file, which can be used all the same.
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

    /// Where the setting with this id was given.
    pub(super) fn origin(&self, id: &'static str) -> Origin {
        match (self.places.get(id), &self.file) {
            (Some(Place::Flag(flag)), _) => Origin::Flag(flag),
            (Some(Place::Line(line)), Some(file)) => Origin::File {
                path: file.path.clone(),
                line: *line,
                field: self.field(id, file.language).to_owned(),
            },
            (_, Some(file)) => Origin::Default(self.field(id, file.language)),
            (_, None) => Origin::Default(id),
        }
    }

    fn field(&self, id: &'static str, language: FileFormat) -> &'static str {
        settings()
            .find(|setting| setting.id() == id)
            .and_then(|setting| language.field(setting))
            .unwrap_or(id)
    }
}
