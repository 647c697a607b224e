//! The commands of `portcullis lab`, as anyone would run them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn lab(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("lab").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).display().to_string()
}

#[test]
fn labs_have_names_and_their_daemons_take_flags() {
    let name = format!("named-{}", std::process::id());
    let up = lab(&["up", "--name", &name, &fixture("demo"), "--", "--masquerade-all", "-v=4"]);
    assert!(up.status.success(), "{}", said(&up));
    let which = ["--name", &name];
    let exec = |command: &[&str]| lab(&[&["exec"], &which[..], &["web-1", "--"], command].concat());
    let status = |command: &[&str]| exec(command).status.code();
    assert_eq!(status(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(status(&["sh", "-c", "kill -TERM $$"]), Some(128 + libc::SIGTERM));
    assert_eq!(status(&["/"]), Some(126));
    let missing = exec(&["nosuch"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(said(&missing).contains("nosuch: No such file"), "{}", said(&missing));

    let list = said(&lab(&["list"]));
    let line = list.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{list}"));
    assert_eq!(line.split_whitespace().nth(1), Some("up"), "{line}");
    let logs = said(&lab(&[&["logs"], &which[..]].concat()));
    assert!(logs.contains("==> node-1 <==\n") && logs.contains("==> node-2 <==\n"), "{logs}");
    let log = said(&lab(&[&["logs"], &which[..], &["node-1"]].concat()));
    assert!(!log.contains("==>") && log.contains("DEBUG"), "-v=4 is logged: {log}");

    let down = lab(&[&["down"], &which[..]].concat());
    assert_eq!(said(&down), format!("lab {name} is gone\n"));
    let again = lab(&[&["down"], &which[..]].concat());
    assert!(
        !again.status.success() && said(&again).contains(&format!("no lab named {name}")),
        "{}",
        said(&again)
    );
}

#[test]
fn what_cannot_be_a_lab_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    let demo = fixture("demo");
    let rows: [(&[&str], &str); 5] = [
        (&["run", folder], "no Kubernetes object"),
        (&["up", folder], "no Kubernetes object"),
        (&["run", &demo, "--", "--manifests=x"], "--manifests: cannot be given"),
        (&["up", &demo, "--", "--mode", "ipvs"], "--mode: cannot be given"),
        (&["up", &demo, "--name", "My_Lab"], "lower-case letters"),
    ];
    for (arguments, message) in rows {
        let output = lab(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(message), "{arguments:?}: {}", said(&output));
    }
    std::fs::write(empty.path().join("n.yaml"), "{apiVersion: v1, kind: Namespace, metadata: {name: a}}")
        .unwrap();
    let nothing = lab(&["run", folder]);
    assert_eq!(nothing.status.code(), Some(1), "{}", said(&nothing));
    assert!(said(&nothing).contains("nothing to probe"), "{}", said(&nothing));
}
