//! Faults of files: rules stay, other files are followed, health names the file, and a repaired file is used without help.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::cluster::{server, slice};
use crate::daemon::{Daemon, HEALTH, Node, program};
use crate::http::get;
use crate::namespace;

const CONFIGURATION: &str =
    "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n";

/// Breaks a file or folder.
type Break = fn(&Path);

/// A file whose first byte cannot be read: its address space has nothing there (EIO).
const UNREADABLE: &str = "/proc/self/mem";

fn replace(path: &Path, create: impl FnOnce(&Path)) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap()
    } else {
        fs::remove_file(path).unwrap()
    }
    create(path);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn remove(path: &Path) {
    replace(path, |_| {});
}

fn forbid(path: &Path) {
    set_mode(path, 0);
}

fn link_to_nothing(path: &Path) {
    replace(path, |path| symlink("/nonexistent/file", path).unwrap());
}

fn link_to_itself(path: &Path) {
    replace(path, |path| symlink(path, path).unwrap());
}

fn io_error(path: &Path) {
    replace(path, |path| symlink(UNREADABLE, path).unwrap());
}

fn pipe(path: &Path) {
    replace(path, |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()));
}

fn no_text(path: &Path) {
    fs::write(path, b"\xff\xfe\x00\x00").unwrap();
}

fn garbage(path: &Path) {
    fs::write(path, "]: {\n").unwrap();
}

/// A file that was written to a full disk.
fn truncate(path: &Path) {
    fs::write(path, "").unwrap();
}

fn folder(path: &Path) {
    replace(path, |path| fs::create_dir(path).unwrap());
}

/// Removes whatever is at a path, for a repaired file.
fn clear(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        set_mode(path, 0o755);
        fs::remove_dir_all(path).unwrap();
    } else {
        drop(fs::remove_file(path));
    }
}

/// Runs a program as root without the right to ignore permissions of files.
fn without_override(command: &Command) -> Command {
    let mut limited = Command::new("setpriv");
    limited.arg("--bounding-set=-dac_override,-dac_read_search").arg(command.get_program());
    limited.args(command.get_args());
    limited
}

fn manifest(name: &str, address: &str, endpoint: &str) -> String {
    let objects: [Value; 2] = [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [endpoint]}], "ports": [{"port": 8080}],
        }),
    ];
    objects.map(|object| format!("---\n{object}\n")).concat()
}

fn rules_have(endpoint: &str) -> bool {
    namespace::run("nft list ruleset").contains(&format!("{endpoint} . 8080"))
}

/// Returns true if `/healthz` succeeds and contains a text.
fn health_has(text: &str) -> bool {
    get(HEALTH, "/healthz").is_some_and(|answer| answer.contains(" 200 ") && answer.contains(text))
}

/// Returns true if `/healthz` has no problem.
fn is_clean() -> bool {
    get(HEALTH, "/healthz").is_some_and(|answer| answer.contains(" 200 ") && !answer.contains("\"problems\""))
}

#[test]
fn no_fault_of_manifests_removes_rules_or_needs_help() {
    // The fault, and what health says. Those of the folder hide the other file too.
    let of_file: [(&str, Break, &str); 9] = [
        ("written to a full disk", truncate, "it is empty"),
        ("no permission", forbid, "Permission denied"),
        ("a link to nothing", link_to_nothing, "No such file"),
        ("a link to itself", link_to_itself, "symbolic link"),
        ("an I/O error", io_error, "Input/output error"),
        ("a pipe", pipe, "not a regular file"),
        ("no text", no_text, "invalid UTF-8"),
        ("malformed YAML", garbage, "a.yaml"),
        (
            "a link to a folder without permission",
            |path| {
                replace(path, |path| symlink(path.parent().unwrap().join("../secret/a.yaml"), path).unwrap());
                set_mode(&path.parent().unwrap().join("../secret"), 0);
            },
            "Permission denied",
        ),
    ];
    let of_folder: [(&str, Break, &str); 4] = [
        ("no permission for the folder", forbid, "Permission denied"),
        ("no folder", remove, "No such file"),
        ("a file instead of the folder", |path| replace(path, no_text), "invalid UTF-8"),
        ("a link to itself instead of the folder", link_to_itself, "symbolic link"),
    ];
    namespace::inside(|| {
        let node = Node::new();
        let manifests = node.folder.path().join("manifests");
        fs::create_dir(node.folder.path().join("secret")).unwrap();
        let (a, b) = (manifests.join("a.yaml"), manifests.join("b.yaml"));
        fs::write(&a, manifest("a", "10.96.0.1", "10.244.0.100")).unwrap();
        fs::write(&b, manifest("b", "10.96.0.2", "10.244.1.100")).unwrap();
        let mut daemon = node.spawn(without_override(&node.program(&[])));
        daemon
            .wait_until("both files are served", || rules_have("10.244.0.100") && rules_have("10.244.1.100"));
        let rows = of_file.iter().map(|row| (row, true)).chain(of_folder.iter().map(|row| (row, false)));
        for (number, ((name, fault, health), is_file)) in rows.enumerate() {
            let (old, new) = (number + 100, number + 101);
            fault(if is_file { &a } else { &manifests });
            daemon.wait_until(&format!("{name}: health has it"), || health_has(health));
            if is_file {
                fs::write(&b, manifest("b", "10.96.0.2", &format!("10.244.1.{new}"))).unwrap();
                daemon.wait_until(name, || rules_have(&format!("10.244.1.{new}")));
            }
            assert!(rules_have(&format!("10.244.0.{old}")), "{name}: rules were removed\n{}", daemon.log());

            clear(if is_file { &a } else { &manifests });
            if !is_file {
                fs::create_dir(&manifests).unwrap();
            }
            // Written as a whole, as by tools that manage configuration.
            for (file, service) in [(&a, ("a", "10.96.0.1", 0)), (&b, ("b", "10.96.0.2", 1))] {
                let (service, address, subnet) = service;
                let next = node.folder.path().join("next");
                fs::write(&next, manifest(service, address, &format!("10.244.{subnet}.{new}"))).unwrap();
                fs::rename(&next, file).unwrap();
            }
            let start = Instant::now();
            daemon.wait_until(&format!("{name}: the repaired file is served"), || {
                rules_have(&format!("10.244.0.{new}")) && rules_have(&format!("10.244.1.{new}"))
            });
            println!("manifests: {name:40} recovered in {:5} ms", start.elapsed().as_millis());
            daemon.wait_until(&format!("{name}: no problem remains"), is_clean);
        }
    });
}

#[test]
fn no_fault_of_credentials_removes_rules_or_needs_help() {
    let rows: [(&str, &str, Break); 15] = [
        ("no kubeconfig", "kubeconfig", remove),
        ("an empty kubeconfig", "kubeconfig", truncate),
        ("a malformed kubeconfig", "kubeconfig", garbage),
        ("a kubeconfig without permission", "kubeconfig", forbid),
        ("an I/O error of the kubeconfig", "kubeconfig", io_error),
        ("a folder instead of the kubeconfig", "kubeconfig", folder),
        ("a link to itself as the kubeconfig", "kubeconfig", link_to_itself),
        ("a pipe instead of the kubeconfig", "kubeconfig", pipe),
        ("no token file", "token", remove),
        ("an empty token file", "token", truncate),
        ("a token file without permission", "token", forbid),
        ("an I/O error of the token file", "token", io_error),
        ("a folder instead of the token file", "token", folder),
        ("no text in the token file", "token", no_text),
        ("a pipe instead of the token file", "token", pipe),
    ];
    // Health is updated every few seconds, so the rows run at the same time, each on a node of its own.
    std::thread::scope(|scope| {
        for row in rows {
            scope.spawn(move || namespace::inside(move || break_and_repair_credentials(row)));
        }
    });
}

fn break_and_repair_credentials((name, file, fault): (&str, &str, Break)) {
    let node = Node::new();
    let server = server("10.244.0.100");
    let folder = node.folder.path();
    let kubeconfig = server.kubeconfig(folder, "");
    let text = fs::read_to_string(&kubeconfig).unwrap().replace("\"token\":\"\"", "\"tokenFile\":\"token\"");
    let write = |name: &str, text: &str| {
        fs::write(folder.join("next"), text).unwrap();
        fs::rename(folder.join("next"), folder.join(name)).unwrap();
    };
    write("kubeconfig", &text);
    write("token", "first");
    server.require_token("first");
    let mut command = program();
    command.args(["--mode=nftables", "--kubeconfig"]).arg(&kubeconfig);
    let mut daemon = node.spawn(without_override(&command));
    daemon.wait_until("the Service is served", || rules_have("10.244.0.100"));

    fault(&folder.join(file));
    server.disconnect_all();
    daemon.wait_until(&format!("{name}: health has it"), || {
        health_has("the changed credentials are invalid") && health_has(file)
    });
    // The last credentials are still valid.
    assert!(rules_have("10.244.0.100"), "{name}: rules were removed");
    server.apply(slice("10.244.0.101"));
    daemon.wait_until(&format!("{name}: changes are followed"), || rules_have("10.244.0.101"));

    clear(&folder.join(file));
    server.require_token("second");
    write("kubeconfig", &text);
    write("token", "second");
    server.disconnect_all();
    let start = Instant::now();
    server.apply(slice("10.244.0.102"));
    daemon.wait_until(&format!("{name}: the repaired file is used"), || rules_have("10.244.0.102"));
    println!("credentials: {name:40} recovered in {:5} ms", start.elapsed().as_millis());
    daemon.wait_until(&format!("{name}: no problem remains"), is_clean);
}

#[test]
fn no_fault_of_the_configuration_file_stops_the_daemon() {
    let rows: [(&str, Break); 9] = [
        ("no file", remove),
        ("an empty file", truncate),
        ("malformed YAML", garbage),
        ("no permission", forbid),
        ("an I/O error", io_error),
        ("a folder", folder),
        ("a link to itself", link_to_itself),
        ("no text", no_text),
        ("a pipe", pipe),
    ];
    namespace::inside(|| {
        let node = Node::new();
        let manifests = node.folder.path().join("manifests");
        fs::write(manifests.join("a.yaml"), manifest("a", "10.96.0.1", "10.244.0.100")).unwrap();
        let file = node.folder.path().join("config.yaml");
        fs::write(&file, CONFIGURATION).unwrap();
        let mut command = program();
        command.arg("--manifests").arg(&manifests).arg("--config").arg(&file);
        let mut daemon = node.spawn(without_override(&command));
        daemon.wait_until("the Service is served", || rules_have("10.244.0.100"));
        for (number, (name, fault)) in rows.into_iter().enumerate() {
            fault(&file);
            daemon.wait_until(&format!("{name}: health has it"), || {
                health_has("the configuration file is invalid")
            });
            let endpoint = format!("10.244.0.{}", number + 101);
            fs::write(manifests.join("a.yaml"), manifest("a", "10.96.0.1", &endpoint)).unwrap();
            daemon.wait_until(&format!("{name}: changes are followed"), || rules_have(&endpoint));
            clear(&file);
            fs::write(node.folder.path().join("next"), CONFIGURATION).unwrap();
            fs::rename(node.folder.path().join("next"), &file).unwrap();
            daemon.wait_until(&format!("{name}: no problem remains"), || {
                get(HEALTH, "/healthz").is_some_and(|answer| !answer.contains("warning"))
            });
            assert!(daemon.is_running(), "{name}:\n{}", daemon.log());
        }
    });
}

/// Files that the program writes: an error must not look like success.
#[test]
fn output_that_cannot_be_written_fails_the_command() {
    namespace::inside(|| {
        let node = Node::new();
        let folder = node.folder.path();
        fs::create_dir(folder.join("locked")).unwrap();
        set_mode(&folder.join("locked"), 0o555);
        let locked = folder.join("locked/config").display().to_string();
        for (path, expected) in [
            ("/dev/full", "No space left on device"),
            (locked.as_str(), "Permission denied"),
            ("/nonexistent/config", "No such file"),
            ("/proc/sys/config", ""),
        ] {
            let mut command = program();
            command.arg(format!("--write-config-to={path}"));
            let output = without_override(&command).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{path}: {stderr}");
            assert!(stderr.contains(path) && stderr.contains(expected), "{path}: {stderr}");
        }
    });
}

/// Files that commands read: no result without an error, and the error names the file.
#[test]
fn input_that_cannot_be_read_fails_the_command() {
    let faults: [(&str, Break); 9] = [
        ("no file", remove),
        ("an empty file", truncate),
        ("malformed YAML", garbage),
        ("no permission", forbid),
        ("an I/O error", io_error),
        ("a folder", folder),
        ("a link to itself", link_to_itself),
        ("no text", no_text),
        ("a pipe", pipe),
    ];
    namespace::inside(|| {
        let node = Node::new();
        let folder = node.folder.path();
        let manifests = folder.join("manifests");
        fs::write(manifests.join("a.yaml"), manifest("a", "10.96.0.1", "10.244.0.100")).unwrap();
        let contents = [
            ("--host", "host.yaml", "interfaces: []\n".to_owned()),
            ("--config", "config.yaml", CONFIGURATION.to_owned()),
            ("--manifests", "cluster.yaml", manifest("a", "10.96.0.1", "10.244.0.100")),
        ];
        for (flag, name, content) in contents {
            let file = folder.join(name);
            let run = || {
                let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
                command
                    .args(["render", "--hostname-override=node-a", "--mode=nftables"])
                    .arg(flag)
                    .arg(&file);
                if flag != "--manifests" {
                    command.arg("--manifests").arg(&manifests);
                }
                without_override(&command).output().unwrap()
            };
            fs::write(&file, &content).unwrap();
            let whole = run();
            assert!(whole.status.success(), "{flag}: {}", String::from_utf8_lossy(&whole.stderr));
            for (fault, break_file) in faults {
                // A file without documents is a cluster without objects.
                if (flag, fault) == ("--manifests", "an empty file") {
                    continue;
                }
                clear(&file);
                fs::write(&file, &content).unwrap();
                break_file(&file);
                if (flag, fault) == ("--manifests", "a folder") {
                    fs::write(file.join("b.yaml"), "]: {").unwrap();
                }
                let output = run();
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(2), "{flag}: {fault}: {stderr}");
                assert!(stderr.contains(name), "{flag}: {fault}: {stderr}");
            }
        }
    });
}

/// Kernel settings that cannot be written, as in a container without privileges, are no reason to stop.
#[test]
fn read_only_kernel_settings_are_reported_and_survived() {
    namespace::inside(|| {
        let node = Node::new();
        let manifests = node.folder.path().join("manifests");
        fs::write(manifests.join("a.yaml"), manifest("a", "10.96.0.1", "10.244.0.100")).unwrap();
        let daemon = node.program(&[]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -o remount,ro,bind /proc/sys 2>/dev/null || { mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys; }; exec \"$0\" \"$@\""]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        let mut daemon: Daemon = node.spawn(command);
        daemon.wait_until("the Service is served", || rules_have("10.244.0.100"));
        daemon.wait_healthy();
        let log = daemon.log();
        assert!(log.contains("Read-only file system") || !log.contains("cannot set"), "{log}");
    });
}
