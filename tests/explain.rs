//! `portcullis explain` and `portcullis policy matrix` as an operator runs them: whole outputs, in
//! `fixtures/explain`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// What a run prints, what it complains of, and its exit status.
fn transcript(arguments: &str) -> String {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments.split_whitespace())
        .current_dir(fixtures())
        .output()
        .expect("the program runs");
    let mut text = String::from_utf8(stdout).expect("it prints UTF-8");
    let complaints = String::from_utf8(stderr).expect("it prints UTF-8");
    // What is logged bears the time of day.
    for line in complaints.lines().filter(|line| line.starts_with("portcullis: ")) {
        writeln!(text, "{line}").expect("writing to memory");
    }
    writeln!(text, "exit status {}", status.code().expect("it ends by itself")).expect("writing to memory");
    text
}

#[test]
fn runs_print_what_they_should() {
    let mut folders: Vec<PathBuf> = fs::read_dir(fixtures().join("explain"))
        .expect("the cases")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() >= 25, "only {} cases", folders.len());
    let mut wrong = String::new();
    for folder in folders {
        let arguments = fs::read_to_string(folder.join("args")).expect("its arguments");
        let printed = transcript(&arguments);
        let file = folder.join("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, &printed).expect("the fixtures can be written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if printed != expected {
            let name = folder.file_name().expect("it has a name").display();
            writeln!(wrong, "== {name}\n-- expected\n{expected}-- printed\n{printed}")
                .expect("writing to memory");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
