//! Configuration errors and warnings. All errors are reported at once, so that a user does not fix one mistake only to see
//! the next.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Origin of a value: the flag, or the line of the file, that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name (without dashes).
    Flag(&'static str),
    /// This field of the configuration file.
    File {
        /// The path given to `--config`.
        path: PathBuf,
        /// Line, counted from 1; 0 if unknown.
        line: usize,
        /// Path of the field, such as `iptables.masqueradeBit`.
        field: String,
    },
    /// The default of this field.
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

/// One error in a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config` cannot be read.
    #[error("{}: cannot read the configuration file: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The file has a syntax error.
    #[error("{}{}: invalid {format}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1, if known.
        line: Option<usize>,
        /// `YAML` or `TOML`.
        format: &'static str,
        /// Message of the parser.
        message: String,
    },
    /// The document has another `apiVersion` or `kind`.
    #[error("{}:{line}: {field} is {found}, expected {expected:?}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// The value in the file, or `missing`.
        found: String,
        /// The expected value.
        expected: &'static str,
    },
    /// An unknown field.
    #[error("{origin}: unknown field{}", suggestion.as_ref().map(|suggestion| format!("; did you mean {suggestion}?")).unwrap_or_default())]
    UnknownField {
        /// Origin of the value.
        origin: Origin,
        /// Known field with a similar name.
        suggestion: Option<String>,
    },
    /// A field that occurs more than once in a mapping.
    #[error("{origin}: duplicate field; first defined in line {first}")]
    Duplicate {
        /// Origin of the second occurrence.
        origin: Origin,
        /// Line of the first occurrence.
        first: usize,
    },
    /// A value with the wrong form, or outside of the allowed values.
    #[error("{origin}: invalid value {value}: expected {expected}")]
    Invalid {
        /// Origin of the value.
        origin: Origin,
        /// The value, formatted for the message.
        value: String,
        /// Description of the expected value.
        expected: String,
    },
}

/// How many errors of a configuration are shown.
pub(super) const MAX_SHOWN: usize = 100;

/// All errors of a configuration; never empty. Displays one line per error, up to `MAX_SHOWN` of them.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Returns the value if there are no errors.
    pub(super) fn unless_empty<T>(errors: Vec<ConfigError>, value: T) -> Result<T, Self> {
        if errors.is_empty() { Ok(value) } else { Err(Self(errors)) }
    }

    /// Iterates over the errors.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        if self.0.len() > MAX_SHOWN {
            f.write_str("\nfurther errors are not shown")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A warning about a configuration that can be used. Each is one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A setting that is accepted for compatibility with kube-proxy.
    #[error("{origin} has no effect: {why}")]
    NoEffect {
        /// Origin of the setting.
        origin: Origin,
        /// The reason.
        why: &'static str,
    },
    /// The file is a ConfigMap.
    #[error("{} is a ConfigMap; reading the configuration from data[{entry}]", path.display())]
    Unwrapped {
        /// The file.
        path: PathBuf,
        /// Key of the entry.
        entry: String,
    },
    /// `--write-config-to` writes TOML to a file whose name does not end in `.toml`.
    #[error(
        "{} is written as Portcullis TOML, because a KubeProxyConfiguration has no field for {fields}; kube-proxy cannot read it", path.display()
    )]
    WrittenAsToml {
        /// The file.
        path: PathBuf,
        /// The settings without a field.
        fields: String,
    },
    /// A flag that is ignored because of a configuration file, as in kube-proxy.
    #[error("--{flag} is ignored because of --config; {}", field.map_or_else(
        || "remove one of the two".to_owned(), |field| format!("set {field} in {}", path.display())))]
    IgnoredFlag {
        /// The flag's name.
        flag: &'static str,
        /// The configuration file.
        path: PathBuf,
        /// The field of that file with the same meaning.
        field: Option<&'static str>,
    },
    /// A feature gate that is locked to its default.
    #[error("{origin}: the feature gate {gate} is always enabled and need not be set")]
    GraduatedGate {
        /// Origin of the setting.
        origin: Origin,
        /// Name of the gate.
        gate: String,
    },
}
