//! `portcullis explain` and `portcullis policy matrix` as an operator runs them: whole outputs, in
//! `fixtures/explain`.

mod api_server;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use api_server::ApiServer;
use portcullis_cluster::manifest;

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

/// `ops/probe-1` is let in by a ClusterNetworkPolicy alone.
#[test]
fn an_api_server_is_asked_as_manifests_are_read() {
    const ASK: &str = "explain --network-policy --from ops/probe-1 --to shop/web-1:8080";
    let manifests = "explain/shop.yaml";
    let text = fs::read_to_string(fixtures().join(manifests)).expect("the shop");
    let server = ApiServer::start();
    server.load(manifest::parse(manifests, &text).map(|document| document.expect("well formed").value));
    let read = transcript(&format!("{ASK} --manifests {manifests}"));
    assert!(read.starts_with("ALLOWED") && read.ends_with("exit status 0\n"), "{read}");
    assert_eq!(transcript(&format!("{ASK} --master {}", server.url())), read);

    server.set_absent(&["clusternetworkpolicies"]);
    let without = transcript(&format!("{ASK} --master {}", server.url()));
    assert!(without.starts_with("DENIED") && without.ends_with("exit status 1\n"), "{without}");
}
