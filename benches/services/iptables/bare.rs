//! The reference of iptables mode: the tool restores a recorded text.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::flavour::Flavour;
use crate::figures::Spent;
use crate::process;

/// One run of `iptables-restore`: its arguments, and the file with its input.
#[derive(Clone, Debug)]
pub(crate) struct Restore {
    pub(crate) arguments: Vec<String>,
    pub(crate) text: PathBuf,
}

impl Restore {
    /// Returns the number of lines of its input.
    pub(crate) fn lines(&self) -> usize {
        let mut text = Vec::new();
        File::open(&self.text).and_then(|mut file| file.read_to_end(&mut text)).expect("it was recorded");
        text.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// Takes the restores that were recorded since the last call, in order.
pub(crate) fn take_recorded(records: &Path, to: &Path) -> Vec<Restore> {
    fs::create_dir_all(to).expect("the temporary folder can be written");
    let entries = fs::read_dir(records).expect("the recording tools made it");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("readable").file_name()).collect();
    names.sort();
    for name in &names {
        fs::rename(records.join(name), to.join(name)).expect("both folders are in one place");
    }
    let texts =
        names.iter().map(|name| to.join(name)).filter(|path| path.extension().is_some_and(|e| e == "text"));
    let restore = |text: PathBuf| {
        let arguments =
            fs::read_to_string(text.with_extension("arguments")).expect("written before the text");
        Restore { arguments: arguments.split_whitespace().map(str::to_owned).collect(), text }
    };
    texts.map(restore).collect()
}

/// Runs restores one after the other in the network namespace of this thread.
pub(crate) fn restore(flavour: Flavour, restores: &[Restore]) -> Spent {
    let start = Instant::now();
    let mut spent = Spent::default();
    for restore in restores {
        let text = File::open(&restore.text).expect("it was recorded");
        let mut command = Command::new(flavour.program());
        command.arg("iptables-restore").args(&restore.arguments).stdin(text).stdout(Stdio::null());
        let mut child = command.spawn().expect("the tool was found");
        let (status, processor) = process::wait(&mut child);
        assert!(status.success(), "the bare tool rejected {}: {status}", restore.text.display());
        spent.processor += processor;
    }
    spent.wall = start.elapsed();
    spent
}

/// Dumps our tables in the network namespace of this thread, without counters and comments.
pub(crate) fn dump(flavour: Flavour) -> String {
    let mut plain = String::new();
    // One table at a time: the legacy tool dumps all tables in the order of their creation.
    for table in ["mangle", "filter", "nat"] {
        let mut command = Command::new(flavour.program());
        let output = command.args(["iptables-save", "-t", table]).stdin(Stdio::null()).output();
        let output = output.expect("the tool was found");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("rules are text");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once('[').filter(|_| line.starts_with(':')) {
                Some((chain, _)) => plain.extend([chain, "[0:0]\n"]),
                None => plain.extend([line, "\n"]),
            }
        }
    }
    plain
}

/// Returns a whole dump as one restore.
pub(crate) fn in_one_file(dump: &str, folder: &Path) -> Vec<Restore> {
    let text = folder.join("one-file.text");
    fs::write(&text, dump).expect("the temporary folder can be written");
    let arguments = ["-w", "5", "--noflush"].map(str::to_owned).to_vec();
    vec![Restore { arguments, text }]
}
