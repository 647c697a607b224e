//! Complete output of `portcullis explain`, `policy matrix` and `services`, compared with `fixtures/explain` and
//! `fixtures/service-report`.

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

/// Returns the output of a run, its error message, and its exit status.
fn transcript(arguments: &str) -> String {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments.split_whitespace())
        .current_dir(fixtures())
        .output()
        .expect("the program runs");
    let mut text = String::from_utf8(stdout).expect("it prints UTF-8");
    let errors = String::from_utf8(stderr).expect("it prints UTF-8");
    // Log lines contain the time of day.
    for line in errors.lines().filter(|line| line.starts_with("portcullis: ")) {
        writeln!(text, "{line}").expect("writing to memory");
    }
    writeln!(text, "exit status {}", status.code().expect("it was not killed")).expect("writing to memory");
    text
}

#[test]
fn explanations_are_as_expected() {
    check_runs("explain", 25);
}

#[test]
fn service_reports_are_as_expected() {
    check_runs("service-report", 12);
}

/// Runs the cases of a folder, of which there are at least `count`.
fn check_runs(cases: &str, count: usize) {
    let mut folders: Vec<PathBuf> = fs::read_dir(fixtures().join(cases))
        .expect("the cases")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() >= count, "only {} cases", folders.len());
    let mut wrong = String::new();
    for folder in folders {
        let arguments = fs::read_to_string(folder.join("args")).expect("the arguments");
        let printed = transcript(&arguments);
        let file = folder.join("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, &printed).expect("the fixtures can be written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if printed != expected {
            let name = folder.file_name().expect("a name").display();
            writeln!(wrong, "== {name}\n-- expected\n{expected}-- printed\n{printed}")
                .expect("writing to memory");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Only a ClusterNetworkPolicy allows `ops/probe-1`.
#[test]
fn api_server_and_manifests_give_the_same_explanation() {
    const COMMAND: &str = "explain --network-policy --from ops/probe-1 --to shop/web-1:8080";
    let manifests = "explain/shop.yaml";
    let text = fs::read_to_string(fixtures().join(manifests)).expect("the shop");
    let server = ApiServer::start();
    server.load(manifest::parse(manifests, &text).map(|document| document.expect("well formed").value));
    let from_manifests = transcript(&format!("{COMMAND} --manifests {manifests}"));
    assert!(
        from_manifests.starts_with("ALLOWED") && from_manifests.ends_with("exit status 0\n"),
        "{from_manifests}"
    );
    assert_eq!(transcript(&format!("{COMMAND} --master {}", server.url())), from_manifests);

    server.set_absent(&["clusternetworkpolicies"]);
    let without = transcript(&format!("{COMMAND} --master {}", server.url()));
    assert!(without.starts_with("DENIED") && without.ends_with("exit status 1\n"), "{without}");
}
