//! The commands of `portcullis lab` as a user runs them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn lab(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("lab").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text_of(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).display().to_string()
}

#[test]
fn labs_have_names_and_their_daemons_take_flags() {
    let name = format!("named-{}", std::process::id());
    let up = lab(&["up", "--name", &name, &fixture("demo"), "--", "--masquerade-all", "-v=4"]);
    assert!(up.status.success(), "{}", text_of(&up));
    let which = ["--name", &name];
    let exec = |command: &[&str]| lab(&[&["exec"], &which[..], &["web-1", "--"], command].concat());
    let status = |command: &[&str]| exec(command).status.code();
    assert_eq!(status(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(status(&["sh", "-c", "kill -TERM $$"]), Some(128 + libc::SIGTERM));
    assert_eq!(status(&["/"]), Some(126));
    let missing = exec(&["nosuch"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(text_of(&missing).contains("nosuch: No such file"), "{}", text_of(&missing));

    let list = text_of(&lab(&["list"]));
    let line = list.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{list}"));
    assert_eq!(line.split_whitespace().nth(1), Some("up"), "{line}");
    let logs = text_of(&lab(&[&["logs"], &which[..]].concat()));
    assert!(logs.contains("==> node-1 <==\n") && logs.contains("==> node-2 <==\n"), "{logs}");
    let log = text_of(&lab(&[&["logs"], &which[..], &["node-1"]].concat()));
    assert!(!log.contains("==>") && log.contains("DEBUG"), "-v=4 is logged: {log}");

    let down = lab(&[&["down"], &which[..]].concat());
    assert_eq!(text_of(&down), format!("lab {name} removed\n"));
    let again = lab(&[&["down"], &which[..]].concat());
    assert!(
        !again.status.success() && text_of(&again).contains(&format!("no lab named {name}")),
        "{}",
        text_of(&again)
    );
}

#[test]
fn invalid_arguments_and_manifests_are_rejected() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    let demo = fixture("demo");
    let rows: [(&[&str], &str); 5] = [
        (&["run", folder], "no Kubernetes object"),
        (&["up", folder], "no Kubernetes object"),
        (&["run", &demo, "--", "--manifests=x"], "--manifests: cannot be set"),
        (&["up", &demo, "--", "--mode", "ipvs"], "--mode: cannot be set"),
        (&["up", &demo, "--name", "My_Lab"], "lower-case letters"),
    ];
    for (arguments, message) in rows {
        let output = lab(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text_of(&output));
        assert!(text_of(&output).contains(message), "{arguments:?}: {}", text_of(&output));
    }
    std::fs::write(empty.path().join("n.yaml"), "{apiVersion: v1, kind: Namespace, metadata: {name: a}}")
        .unwrap();
    let nothing = lab(&["run", folder]);
    assert_eq!(nothing.status.code(), Some(1), "{}", text_of(&nothing));
    assert!(text_of(&nothing).contains("nothing to probe"), "{}", text_of(&nothing));
}
