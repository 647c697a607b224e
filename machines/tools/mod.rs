//! Programs that tests run and `tools/fetch.sh` downloads to the build folder, because Debian has them in no package, or in one
//! that starts a server: `helm`, `kubectl`, `promtool`, NetworkManager.

use std::path::PathBuf;
use std::process::Command;

/// Name of the folder in the build folder.
const FOLDER: &str = "test-tools";

/// Returns a command that runs a downloaded program.
///
/// # Panics
/// If the program is not there.
pub fn command(name: &str) -> Command {
    Command::new(path(name))
}

/// Returns the path of a downloaded program, in the build folder, which also contains this test.
///
/// # Panics
/// If the program is not there.
pub fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let mut paths = test.ancestors().map(|folder| folder.join(FOLDER).join(name));
    paths.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no {name} in a folder `{FOLDER}` above {}; `make tools` downloads it", test.display())
    })
}
