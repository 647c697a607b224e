//! `portcullis lab`: runs the program `portcullis-lab`, which is a package of its own.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the program.
const NAME: &str = "portcullis-lab";

/// Environment variable that tells `portcullis-lab` which program to run on the nodes.
const DAEMON_VARIABLE: &str = "PORTCULLIS_DAEMON";

/// `portcullis-lab` cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// It is neither beside this program nor on PATH.
    #[error("the subcommand lab needs the program {NAME}: install the package {NAME}, or put the program beside {own}", own = own.display())]
    NotInstalled {
        /// This program.
        own: PathBuf,
    },
    /// It cannot be started.
    #[error("cannot execute {}: {source}", program.display())]
    Execute {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Replaces this process by `portcullis-lab` with these arguments. The nodes of the lab run this program, unless
/// `PORTCULLIS_DAEMON` is set. Returns only if that fails.
pub fn exec(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> LabError {
    let own = env::current_exe().unwrap_or_default();
    let beside = own.with_file_name(NAME);
    let program = if beside.is_file() { beside } else { PathBuf::from(NAME) };
    let mut command = Command::new(&program);
    command.args(arguments);
    if env::var_os(DAEMON_VARIABLE).is_none() {
        command.env(DAEMON_VARIABLE, &own);
    }
    let source = command.exec();
    if source.kind() == io::ErrorKind::NotFound && program == Path::new(NAME) {
        return LabError::NotInstalled { own };
    }
    LabError::Execute { program, source }
}
