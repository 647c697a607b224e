//! What is wrong with a configuration. All of it at once: a user who mends one mistake should not be
//! shown the next.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By a flag of this name (without dashes).
    Flag(&'static str),
    /// In the configuration file, under this field.
    File {
        /// The file, as named by `--config`.
        path: PathBuf,
        /// Counted from 1; 0 if unknown.
        line: usize,
        /// The path of the field, such as `iptables.masqueradeBit`.
        field: String,
    },
    /// Nowhere: it is the default of this field.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::File { path, line: 0, field } => write!(f, "{}: {field}", path.display()),
            Self::File { path, line, field } => write!(f, "{}:{line}: {field}", path.display()),
            Self::Default(field) => write!(f, "default of {field}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config` can't be read.
    #[error("{}: cannot read the configuration file: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not YAML, or not TOML.
    #[error("{}{}: not valid {language}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1, if known.
        line: Option<usize>,
        /// `YAML` or `TOML`.
        language: &'static str,
        /// The parser's words.
        message: String,
    },
    /// The file is of another kind or version.
    #[error("{}:{line}: {field} is {found}, expected {expected:?}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A field that there is not.
    #[error("{origin}: no such field{}", suggestion.as_ref().map(|suggestion| format!("; did you mean {suggestion}?")).unwrap_or_default())]
    UnknownField {
        /// Where.
        origin: Origin,
        /// The known field with the most similar name.
        suggestion: Option<String>,
    },
    /// A field that stands in a mapping more than once.
    #[error("{origin}: given twice, first in line {first}")]
    Duplicate {
        /// Where the second one stands.
        origin: Origin,
        /// The line of the first one.
        first: usize,
    },
    /// A value that can't be what it should be, by its form or by its meaning.
    #[error("{origin}: {value} is not possible: expected {expected}")]
    Invalid {
        /// Where.
        origin: Origin,
        /// The value.
        value: String,
        /// What it should be.
        expected: String,
    },
}

/// Everything that is wrong with a configuration; never empty. Prints one line for each.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `Ok` with the value if there are no errors.
    pub(super) fn unless_empty<T>(errors: Vec<ConfigError>, value: T) -> Result<T, Self> {
        if errors.is_empty() { Ok(value) } else { Err(Self(errors)) }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something that a user should know although it does not keep the program from running. Each is
/// one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Accepted for kube-proxy's sake.
    #[error("{origin} has no effect: {why}")]
    NoEffect {
        /// Where it was given.
        origin: Origin,
        /// Why it has none.
        why: &'static str,
    },
    /// The file is a whole ConfigMap.
    #[error("{} is a whole ConfigMap; its entry data[{entry}] is read", path.display())]
    Unwrapped {
        /// The file.
        path: PathBuf,
        /// The key of the entry.
        entry: String,
    },
    /// `--write-config-to` writes another language than the file's name promises.
    #[error(
        "{} is written in Portcullis' TOML, as a KubeProxyConfiguration has no field for {fields}; kube-proxy cannot read it", path.display()
    )]
    WrittenAsToml {
        /// The file.
        path: PathBuf,
        /// The settings that would be lost.
        fields: String,
    },
    /// A flag that a configuration file puts out of force, as in kube-proxy.
    #[error("--{flag} is ignored because of --config; {}", field.map_or_else(
        || "leave out one of the two".to_owned(), |field| format!("set {field} in {}", path.display())))]
    IgnoredFlag {
        /// The flag's name.
        flag: &'static str,
        /// The configuration file.
        path: PathBuf,
        /// The field of that file which says the same.
        field: Option<&'static str>,
    },
    /// A feature gate that can no longer be changed.
    #[error("{origin}: the feature gate {gate} is always on and need not be given")]
    GraduatedGate {
        /// Where it was given.
        origin: Origin,
        /// Its name.
        gate: String,
    },
}
