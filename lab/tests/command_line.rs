//! The command line of `portcullis-lab`: manual, completions, and errors that need no lab.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

const PAGES: [&str; 12] = [
    "portcullis-lab",
    "portcullis-lab-apply",
    "portcullis-lab-completions",
    "portcullis-lab-down",
    "portcullis-lab-exec",
    "portcullis-lab-explain",
    "portcullis-lab-list",
    "portcullis-lab-logs",
    "portcullis-lab-man",
    "portcullis-lab-observe",
    "portcullis-lab-run",
    "portcullis-lab-up",
];

fn portcullis_lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis-lab")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

#[test]
fn all_pages_of_the_manual_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let written = portcullis_lab(&["man", "--all-to", folder.path().to_str().unwrap()]);
    assert!(written.status.success(), "{}", text(&written));
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let files: BTreeSet<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, PAGES.iter().map(|page| format!("{page}.1")).collect());
    for page in PAGES {
        let roff = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
        assert!(roff.contains(&format!(".TH {page} 1 ")), "{page}:\n{roff}");
        for section in ["\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(roff.contains(&format!(".SH {section}\n")), "{section} of {page}:\n{roff}");
        }
        let verb = page.strip_prefix("portcullis-lab-");
        let printed = portcullis_lab(&[&["man"][..], &verb.into_iter().collect::<Vec<_>>()].concat());
        assert_eq!(text(&printed), roff, "{page}");
    }
    let unknown = portcullis_lab(&["man", "frobnicate"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("expected one of run, up, list"), "{}", text(&unknown));
}

#[test]
fn completions_have_all_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&portcullis_lab(&["completions", shell]));
        for verb in ["run", "up", "list", "apply", "down", "logs", "exec"] {
            assert!(script.contains(verb), "{verb} in {shell}");
        }
    }
}

#[test]
fn a_lab_without_its_daemon_program_is_rejected() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/demo");
    for verb in ["run", "up"] {
        let output = portcullis_lab(&[verb, "--daemon", "/nosuch/portcullis", demo]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("install the package portcullis"), "{}", text(&output));
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    for arguments in [&["--help"][..], &["list"], &["man"], &["completions", "bash"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis-lab"));
        let output = command.args(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains("No space left"), "{arguments:?}: {}", text(&output));
    }
}
