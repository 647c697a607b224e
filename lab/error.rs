//! What can go wrong in a lab, each with the thing it is about and the way out.

use std::io;
use std::path::PathBuf;

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried, e.g. `cannot read`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A manifest is not YAML or JSON, or not the Kubernetes object that its `kind` says.
    #[error("{origin}: {message}")]
    Manifest {
        /// The file, or a name for text that came from elsewhere.
        origin: String,
        /// What is wrong, with the line or the field.
        message: String,
    },
    /// The objects are well-formed, yet no cluster can be made from them.
    #[error("{object}: {message}")]
    Plan {
        /// `Service default/web`, `Node node-1` and the like.
        object: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A tool of the system failed.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The command line.
        command: String,
        /// What it printed, or why it could not start.
        message: String,
    },
    /// A system call failed.
    #[error("{doing}: {source}")]
    System {
        /// What was tried, with the thing it was tried on.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such pod, node, or lab.
    #[error("no {what} named {name}; there {are}")]
    Unknown {
        /// `pod`, `node`, `lab`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// What there is instead, e.g. `are default/web-1, default/web-2`.
        are: String,
    },
    /// `lab up` made no lab that is still there.
    #[error("no lab is up; `portcullis lab up FOLDER` makes one")]
    NoLab,
    /// No lab was named, and there are several.
    #[error("several labs are up: {0}; choose one with --name")]
    SeveralLabs(String),
    /// A lab of that name is there already.
    #[error("a lab named {0} is there already; `portcullis lab down --name {0}` removes it")]
    NameTaken(String),
    /// A daemon died, or did not sync in time.
    #[error("the daemon on {node} {message}\n--- the end of {log} ---\n{tail}", log = log.display())]
    Daemon {
        /// The node it serves.
        node: String,
        /// What it did or failed to do.
        message: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The process that holds a kept lab said something unexpected.
    #[error("the lab's keeper: {0}")]
    Keeper(String),
}

/// The result of the lab's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn plan(object: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Plan { object: object.into(), message: message.into() }
    }

    pub(crate) fn system(doing: impl Into<String>, source: io::Error) -> Self {
        Self::System { doing: doing.into(), source }
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// An [`Error::Unknown`] that lists what there is.
    pub(crate) fn unknown<'a>(
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        let are = if known.is_empty() { "are none".to_owned() } else { format!("are {}", known.join(", ")) };
        Self::Unknown { what, name: name.to_owned(), are }
    }
}
