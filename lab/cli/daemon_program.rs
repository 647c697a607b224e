//! Lookup of the daemon program.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use portcullis_lab::Error;

/// Name of the program.
const NAME: &str = "portcullis";

/// Environment variable with the program. `portcullis lab` sets it to itself.
const VARIABLE: &str = "PORTCULLIS_DAEMON";

/// Returns the program to run on every node: the given one, the one in `$PORTCULLIS_DAEMON`, `portcullis` in the folder of
/// this program, or `portcullis` on PATH.
///
/// # Errors
/// The program does not exist or is not executable.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    let chosen = given.map(Path::to_owned).or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
    if let Some(program) = chosen {
        let program = std::path::absolute(&program).unwrap_or(program);
        return match is_executable(&program) {
            true => Ok(program),
            false => Err(not_found(&program)),
        };
    }
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates = beside.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join(NAME));
    candidates.find(|program| is_executable(program)).ok_or_else(|| not_found(Path::new(NAME)))
}

fn is_executable(program: &Path) -> bool {
    program.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

fn not_found(program: &Path) -> Error {
    let message = format!(
        "no such program; expected {NAME} beside portcullis-lab, on PATH, in --daemon or in {VARIABLE}: \
         install the package portcullis"
    );
    Error::Command { command: program.display().to_string(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_program_must_be_executable() {
        assert_eq!(find(Some(Path::new("/bin/sh"))).unwrap(), Path::new("/bin/sh"));
        for missing in ["/etc/passwd", "/nosuch/portcullis", "/"] {
            let error = find(Some(Path::new(missing))).unwrap_err().to_string();
            assert!(error.contains(missing) && error.contains("--daemon"), "{error}");
        }
    }
}
