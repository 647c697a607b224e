//! The lab's error type.

use std::io;
use std::path::PathBuf;

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{action} {path}: {source}")]
    File {
        /// The failed action, e.g. `cannot read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A manifest is not YAML or JSON, or not a valid object of its `kind`.
    #[error("{origin}: {message}")]
    Manifest {
        /// The file, or a name for text from another source.
        origin: String,
        /// The problem, with the line or the field.
        message: String,
    },
    /// The objects are well-formed but contradict each other or exceed the lab's ranges.
    #[error("{object}: {message}")]
    Plan {
        /// `Service default/web`, `Node node-1` and the like.
        object: String,
        /// The problem, and what was expected.
        message: String,
    },
    /// An external program failed.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The command line.
        command: String,
        /// Its error output, or why it could not start.
        message: String,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    System {
        /// The failed action and its object, e.g. `cannot enter network namespace x`.
        action: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// No such pod, node, or lab.
    #[error("no {kind} named {name}; {existing}")]
    NotFound {
        /// `pod`, `node`, `lab`.
        kind: &'static str,
        /// The requested name.
        name: String,
        /// The existing names, e.g. `expected one of default/web-1, default/web-2`.
        existing: String,
    },
    /// No lab started by `lab up` exists.
    #[error("no lab is up; `portcullis lab up FOLDER` starts one")]
    NoLab,
    /// No lab was named, and there are several.
    #[error("several labs are up: {0}; choose one with --name")]
    SeveralLabs(String),
    /// A lab of that name exists.
    #[error("a lab named {0} already exists; `portcullis lab down --name {0}` removes it")]
    NameTaken(String),
    /// A daemon exited, or did not sync in time.
    #[error("the daemon on {node} {message}\n--- last lines of {log} ---\n{tail}", log = log.display())]
    Daemon {
        /// The node it serves.
        node: String,
        /// The failure, as a predicate: `exited with exit status: 1`.
        message: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// Communication with the background process of a lab failed.
    #[error("background process of the lab: {0}")]
    Background(String),
}

/// The result of the lab's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn plan(object: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Plan { object: object.into(), message: message.into() }
    }

    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Self {
        Self::System { action: action.into(), source }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Returns an [`Error::NotFound`] that lists the existing names.
    pub(crate) fn not_found<'a>(
        kind: &'static str,
        name: &str,
        existing: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let existing: Vec<&str> = existing.into_iter().map(String::as_str).collect();
        let existing = match existing.as_slice() {
            [] => "none exist".to_owned(),
            names => format!("expected one of {}", names.join(", ")),
        };
        Self::NotFound { kind, name: name.to_owned(), existing }
    }
}
