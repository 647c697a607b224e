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
    transcript_with(arguments, &[])
}

/// The same, with environment variables. Without any, no kubeconfig is found.
fn transcript_with(arguments: &str, variables: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments.split_whitespace())
        .current_dir(fixtures())
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .envs(variables.iter().copied())
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
    let server = shop();
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

/// Starts an API server with the objects of `explain/shop.yaml`.
fn shop() -> ApiServer {
    let manifests = "explain/shop.yaml";
    let text = fs::read_to_string(fixtures().join(manifests)).expect("the shop");
    let server = ApiServer::start();
    server.load(manifest::parse(manifests, &text).map(|document| document.expect("well formed").value));
    server
}

/// Writes a kubeconfig with contexts; each is a name, the address of its server and its namespace.
fn kubeconfig(path: &Path, current: &str, contexts: &[(&str, &str, &str)]) {
    let mut text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {current}\nusers: [{{name: u, user: {{token: secret-token}}}}]\n"
    );
    let list =
        |entry: fn(&(&str, &str, &str)) -> String| contexts.iter().map(entry).collect::<Vec<_>>().join(", ");
    let clusters = list(|(name, server, _)| format!("{{name: {name}, cluster: {{server: '{server}'}}}}"));
    let named = list(|(name, _, namespace)| {
        format!("{{name: {name}, context: {{cluster: {name}, user: u, namespace: {namespace}}}}}")
    });
    writeln!(text, "clusters: [{clusters}]\ncontexts: [{named}]").expect("writing to memory");
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("the kubeconfig can be written");
}

#[test]
fn credentials_are_found_as_by_kubectl() {
    const COMMAND: &str = "explain --network-policy --from pod/web-1 --to svc/db:5432 --request-timeout 3s";
    let server = shop();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (home, home_file) = (path("home"), folder.path().join("home/.kube/config"));
    let nowhere = "http://127.0.0.1:1";
    kubeconfig(&home_file, "shop", &[("shop", &server.url(), "shop"), ("production", nowhere, "shop")]);
    kubeconfig(&folder.path().join("other"), "ops", &[("ops", &server.url(), "ops")]);
    kubeconfig(&folder.path().join("broken"), "gone", &[("broken", nowhere, "shop")]);
    fs::write(folder.path().join("garbage"), "current-context: [").expect("a file");
    let list = format!("{}:{}:{}", path("missing"), path("other"), home_file.display());
    let home_variable = ("HOME", home.as_str());
    let (other, broken, garbage, missing) = (path("other"), path("broken"), path("garbage"), path("missing"));
    let denied = "DENIED  shop/web-1 to shop/db:postgres";
    // Further arguments, the variables, and a part of the output.
    type Row<'a> = (String, Vec<(&'a str, &'a str)>, &'a str);
    let rows: Vec<Row<'_>> = vec![
        // ~/.kube/config, with the namespace of its context.
        (String::new(), vec![home_variable], denied),
        // $KUBECONFIG replaces it; the namespace of its context has no such pod.
        (
            String::new(),
            vec![home_variable, ("KUBECONFIG", &other)],
            "there is no pod ops/web-1; did you mean shop/web-1?",
        ),
        ("-n shop".to_owned(), vec![home_variable, ("KUBECONFIG", &other)], denied),
        // A list of files is merged; missing ones are skipped, and the first current context counts.
        ("-n shop".to_owned(), vec![("KUBECONFIG", &list)], denied),
        ("--context shop".to_owned(), vec![("KUBECONFIG", &list)], denied),
        // --kubeconfig replaces both.
        (format!("--kubeconfig {}", home_file.display()), vec![("KUBECONFIG", &broken)], denied),
        (format!("--kubeconfig {missing}"), vec![home_variable], "/missing: "),
        // --context.
        ("--context shp".to_owned(), vec![home_variable], "--context: there is no context shp in "),
        ("--context shp".to_owned(), vec![home_variable], "did you mean shop?"),
        ("--context x".to_owned(), vec![home_variable], "the contexts are production, shop"),
        ("--context production".to_owned(), vec![home_variable], "config, context production"),
        (
            "--context shop".to_owned(),
            vec![],
            "--context: there is no context shop in any kubeconfig; /nonexistent/.kube/config does not exist",
        ),
        // --master overrides the server of the kubeconfig.
        (format!("--context production --master {}", server.url()), vec![home_variable], denied),
        // Mistakes name the file and where it comes from.
        (String::new(), vec![("KUBECONFIG", &broken)], "/broken: "),
        (String::new(), vec![("KUBECONFIG", &garbage)], "/garbage: "),
        (
            String::new(),
            vec![("KUBECONFIG", &missing)],
            "no file of $KUBECONFIG exists, and there is no service account",
        ),
        (String::new(), vec![], "/nonexistent/.kube/config does not exist, and there is no service account"),
    ];
    for (arguments, variables, expected) in rows {
        let printed = transcript_with(&format!("{COMMAND} {arguments}"), &variables);
        assert!(printed.contains(expected), "{arguments} {variables:?}: expected {expected:?}\n{printed}");
        assert!(!printed.contains("secret-token"), "{printed}");
    }
    // Other commands find them in the same way.
    let commands = [
        "render --hostname-override node-1",
        "policy matrix -n shop --port 80",
        "services -A",
        "diff --hostname-override node-1",
        "migrate --to nftables --hostname-override node-1",
    ];
    for command in commands {
        let printed = transcript_with(&format!("{command} --context nothing"), &[home_variable]);
        assert!(printed.contains("--context: there is no context nothing in "), "{command}: {printed}");
    }
    // The namespace of the context, unless one is named.
    let services =
        |arguments: &str| transcript_with(&format!("services db {arguments}"), &[("KUBECONFIG", &list)]);
    assert!(
        services("--context shop").starts_with("Service:    shop/db\n"),
        "{}",
        services("--context shop")
    );
    assert!(
        services("--context ops").contains("there is no Service ops/db"),
        "{}",
        services("--context ops")
    );
    assert!(
        services("--context ops -n shop").starts_with("Service:    shop/db\n"),
        "{}",
        services("--context ops -n shop")
    );
    // Without a source, services asks the daemon.
    for command in [commands[0], commands[1], "services -A --context shop"] {
        let printed = transcript_with(command, &[home_variable]);
        assert!(printed.ends_with("exit status 0\n"), "{command}: {printed}");
    }
}
