//! Build script of `portcullis` and `portcullis-lab`: the commit from which they are built, as `PORTCULLIS_COMMIT`.
//!
//! The environment variable of that name has precedence: builds outside of a repository (packages, images) set it, and it
//! makes builds of one source reproducible. Otherwise, optimized builds ask git. Debug builds do not, because each commit
//! would then compile the program again.

use std::env;
use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "PORTCULLIS_COMMIT";

/// The number of digits of a commit.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // Both packages have this script; build scripts run in the folder of the package.
    let script = ["build.rs", "../build.rs"].into_iter().find(|path| Path::new(path).exists());
    let script = script.expect("cargo runs it from there");
    println!("cargo::rerun-if-changed={script}");
    let given = env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let is_optimized = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let found = || if is_optimized { head(script) } else { None };
    let commit = match given.or_else(found) {
        None => "unknown".to_owned(),
        Some(commit) if is_commit(&commit) => commit.chars().take(DIGITS).collect(),
        Some(other) => panic!("{VARIABLE}: {other:?} is not a commit; expected hexadecimal digits"),
    };
    println!("cargo::rustc-env={VARIABLE}={commit}");
}

/// Returns the commit of the working tree; `None` in an unpacked archive, also if that is inside of another repository.
fn head(script: &str) -> Option<String> {
    git(&["ls-files", "--error-unmatch", script])?;
    // The log of HEAD grows with each commit and checkout.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
