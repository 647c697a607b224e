//! Tests of the command line: manual pages, shell completions and output errors.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

fn portcullis(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let Output { status, stdout, stderr } = command.args(arguments).output().expect("the binary runs");
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("it prints UTF-8")
}

/// Runs a program with a text as standard input. Returns whether it succeeded, and its output.
fn run_with_input(program: &str, arguments: &[&str], text: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let output_text = [stdout, stderr].concat();
    (status.success(), String::from_utf8(output_text).expect("programs print UTF-8"))
}

/// Returns the flags in the output of `--help`.
fn flags(command: &[&str]) -> BTreeSet<String> {
    let help = portcullis(&[command, &["--help"]].concat());
    // A wrapped description may begin with the name of another flag, but further to the right.
    let is_flag =
        |line: &&str| line.find(|c| c != ' ').is_some_and(|at| at < 8 && line[at..].starts_with('-'));
    let words = help.lines().filter(is_flag);
    let flags = words.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
    flags
        .map(|flag| {
            flag.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-' || c.is_ascii_digit()).collect()
        })
        .collect()
}

const PAGES: [&[&str]; 25] = [
    &[],
    &["status"],
    &["observe"],
    &["render"],
    &["diff"],
    &["explain"],
    &["services"],
    &["policy"],
    &["policy", "matrix"],
    &["migrate"],
    &["cleanup"],
    &["bundle"],
    &["lab"],
    &["lab", "apply"],
    &["lab", "down"],
    &["lab", "exec"],
    &["lab", "explain"],
    &["lab", "list"],
    &["lab", "logs"],
    &["lab", "run"],
    &["lab", "up"],
    &["man"],
    &["completions"],
    &["pause"],
    &["version"],
];

#[test]
fn every_manual_page_is_well_formed_and_has_all_flags() {
    for page in PAGES {
        let roff = portcullis(&[&["man"], page].concat());
        let (_, messages) = run_with_input("mandoc", &["-T", "lint", "-W", "warning"], &roff);
        // Blank lines around the possible values of a flag are displayed correctly.
        let serious: Vec<_> =
            messages.lines().filter(|line| !line.contains("skipping paragraph macro")).collect();
        assert_eq!(serious, [""; 0], "{page:?}");
        let name = [&["portcullis"], page].concat().join("-");
        assert!(roff.contains(&format!(".TH {name} 1 ")), "{name}:\n{roff}");
        let sections: Vec<&str> = match page {
            [] => vec!["EXIT STATUS", "FILES", "SEE ALSO"],
            // They have subcommands with pages of their own.
            ["policy"] => vec!["SEE ALSO"],
            ["lab", ..] => Vec::new(),
            _ => vec!["EXIT STATUS", "SEE ALSO"],
        };
        for section in sections {
            let headings = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            assert!(headings.iter().any(|heading| roff.contains(heading)), "{section} of {name}:\n{roff}");
        }
        for flag in flags(page) {
            let written = flag.replace('-', "\\-");
            assert!(roff.contains(&format!("\\fB{written}\\fR")), "{flag} of {page:?}");
        }
    }
}

#[test]
fn all_pages_are_written_to_a_folder() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    portcullis(&["man", "--all-to", &folder.path().display().to_string()]);
    let written: BTreeSet<String> = std::fs::read_dir(folder.path())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").file_name().into_string().expect("a plain name"))
        .collect();
    let file = |page: &[&str]| format!("{}.1", [&["portcullis"], page].concat().join("-"));
    // The package of portcullis-lab has the pages of lab.
    let own = || PAGES.into_iter().filter(|page| page.first() != Some(&"lab"));
    let expected: BTreeSet<String> = own().map(file).collect();
    assert_eq!(written, expected);
    for page in own() {
        let text = std::fs::read_to_string(folder.path().join(file(page))).expect("it is written");
        assert_eq!(text, portcullis(&[&["man"][..], page].concat()), "{page:?}");
    }
}

#[test]
fn an_unknown_page_is_an_error_that_lists_the_known_ones() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = command.args(["man", "policy", "matrx"]).output().expect("the binary runs");
    let output_text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{output_text}");
    assert!(
        output_text.contains("\"policy\" has no subcommand \"matrx\"")
            && output_text.contains("expected one of matrix"),
        "{output_text}"
    );
}

/// Returns bash's completions of the last word.
fn completed(script: &str, words: &[&str]) -> BTreeSet<String> {
    completed_by("_portcullis", script, words)
}

/// Returns the completions of the last word by a function of bash.
fn completed_by(function: &str, script: &str, words: &[&str]) -> BTreeSet<String> {
    let last = words.len() - 1;
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let script_text = format!(
        "{script}\nCOMP_WORDS=({line})\nCOMP_CWORD={last}\n{function} portcullis '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        words[last],
        words[last - 1]
    );
    let (fine, output_text) = run_with_input("bash", &["--norc"], &script_text);
    assert!(fine, "{output_text}");
    output_text.lines().map(str::to_owned).collect()
}

/// A function `portcullis` of a shell in place of the program, which asks the daemon for the names.
const FAKE_SERVICES: &str = r#"
portcullis() {
    case "$*" in
        "services -A") printf 'NAMESPACE NAME TYPE\nshop web ClusterIP\nshop db ClusterIP\nops probe ClusterIP\n' ;;
        "services -n shop") printf 'NAME TYPE\nweb ClusterIP\ndb ClusterIP\n' ;;
        "services -n default") printf 'no Services\n' ;;
    esac
}
"#;

#[test]
fn bash_completes_names_of_namespaces_and_services() {
    let script = portcullis(&["completions", "bash"]);
    let rows: [(&[&str], &[&str]); 7] = [
        (&["portcullis", "services", "-n", ""], &["ops", "shop"]),
        (&["portcullis", "observe", "--namespace", "s"], &["shop"]),
        (&["portcullis", "services", "-n", "shop", ""], &["db", "web"]),
        (&["portcullis", "services", "-n", "shop", "w"], &["web"]),
        (&["portcullis", "services", ""], &[]),
        (&["portcullis", "services", "--probl"], &["--problems"]),
        (&["portcullis", "services", "-o", "y"], &["yaml"]),
    ];
    for (words, expected) in rows {
        let found = completed_by("_portcullis_with_names", &format!("{script}{FAKE_SERVICES}"), words);
        let found: Vec<&str> = found.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn bash_completes_flags_subcommands_and_values() {
    let script = portcullis(&["completions", "bash"]);
    let (fine, messages) = run_with_input("bash", &["-n"], &script);
    assert!(fine && messages.is_empty(), "{messages}");
    let rows: [(&[&str], &[&str]); 13] = [
        (&["portcullis", "lab", "l"], &["list", "logs"]),
        (&["portcullis", "lab", "run", "--d"], &["--daemon"]),
        (&["portcullis", "lab", "up", "--mode", "ip"], &["iptables", "ipvs"]),
        (&["portcullis", "--conntrack-m"], &["--conntrack-max-per-core", "--conntrack-min"]),
        (&["portcullis", "ren"], &["render"]),
        (&["portcullis", "render", "--only"], &["--only-policies"]),
        (&["portcullis", "policy", "m"], &["matrix"]),
        (&["portcullis", "render", "--family", "ipv"], &["ipv4", "ipv6"]),
        (&["portcullis", "--mode", "ip"], &["iptables", "ipvs"]),
        (&["portcullis", "diff", "--output", ""], &["text", "json", "yaml"]),
        (&["portcullis", "migrate", "--to", "n"], &["nftables"]),
        (&["portcullis", "--logging-format", "j"], &["json"]),
        (&["portcullis", "lab", "run", "-o", "y"], &["yaml"]),
    ];
    for (words, expected) in rows {
        let expected: BTreeSet<String> = expected.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(completed(&script, words), expected, "{words:?}");
    }
    let all = completed(&script, &["portcullis", "--"]);
    let missing: Vec<String> = flags(&[]).difference(&all).cloned().collect();
    assert_eq!(missing, [""; 0]);
}

/// The completion script lists the verbs and flags of `portcullis-lab`, which is another program.
#[test]
fn bash_completes_every_verb_and_flag_of_the_lab() {
    let script = portcullis(&["completions", "bash"]);
    let help = portcullis(&["lab", "--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: BTreeSet<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 7, "{help}");
    let completed_verbs = completed(&script, &["portcullis", "lab", ""]);
    for verb in verbs {
        assert!(completed_verbs.contains(verb), "{verb} in {completed_verbs:?}");
        let completed_flags = completed(&script, &["portcullis", "lab", verb, "--"]);
        for flag in flags(&["lab", verb]) {
            assert!(completed_flags.contains(&flag), "{flag} of {verb} in {completed_flags:?}");
        }
    }
}

/// An API server that does not respond makes a command wait.
#[test]
fn progress_appears_on_a_terminal_only() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let master = format!("--master=http://{}", listener.local_addr().expect("it is bound"));
    let arguments = ["render", &master, "--request-timeout=8s", "--hostname-override=node-a"];
    let binary = env!("CARGO_BIN_EXE_portcullis");
    let piped =
        Command::new(binary).args(arguments).env_remove("RUST_LOG").output().expect("the binary runs");
    let piped_text = String::from_utf8_lossy(&piped.stderr).into_owned();
    let line = std::iter::once(binary).chain(arguments).collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    let output =
        script.env_remove("RUST_LOG").stdin(Stdio::null()).output().expect("script, which Debian always has");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((piped.status.code(), output.status.code()), (Some(2), Some(2)), "{piped_text}{text}");
    const MESSAGE: &str = "reading the cluster's objects and rendering rules (";
    assert!(text.contains(MESSAGE) && text.contains("no response from the API server"), "{text:?}");
    assert!(!piped_text.contains(MESSAGE) && !piped_text.contains('\r'), "{piped_text:?}");
}

/// What fish itself offers for a command line.
#[test]
fn fish_completes_subcommands_and_values() {
    const FAKE: &str = r#"
function portcullis
    switch "$argv"
        case 'services -A'
            printf 'NAMESPACE NAME TYPE\nshop web ClusterIP\nops probe ClusterIP\n'
        case 'services -n shop'
            printf 'NAME TYPE\nweb ClusterIP\ndb ClusterIP\n'
    end
end
"#;
    let script = portcullis(&["completions", "fish"]);
    for (line, expected) in [
        ("portcullis services -n ", &["ops", "shop"][..]),
        ("portcullis services -n shop ", &["db", "web"]),
        ("portcullis render --mode ip", &["iptables", "ipvs"]),
        ("portcullis cle", &["cleanup"]),
        ("portcullis diff --output ", &["json", "text", "yaml"]),
        ("portcullis explain --protocol ", &["sctp", "tcp", "udp"]),
    ] {
        let (fine, output_text) =
            run_with_input("fish", &["--no-config"], &format!("{script}{FAKE}\ncomplete -C '{line}'\n"));
        assert!(fine, "{output_text}");
        let mut words: Vec<&str> = output_text.lines().filter_map(|line| line.split('\t').next()).collect();
        words.sort_unstable();
        assert_eq!(words, expected, "{line}: {output_text}");
    }
}

/// What zsh itself lists when the tab key is pressed in a terminal.
#[test]
fn zsh_completes_subcommands_and_values() {
    const SCRIPT: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1='ready> '; fpath=($FOLDER \$fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=0; print loa''ded"
all=
for i in {1..600}; do
    while zpty -r -t shell chunk; do all+=$chunk; done
    [[ $all == *loaded* ]] && break
    sleep 0.05
done
zpty -w -n shell "$LINE"$'\t\t'
listed=
for i in {1..600}; do
    while zpty -r -t shell chunk; do listed+=$chunk; done
    [[ $listed == *$LAST* ]] && break
    sleep 0.05
done
print -r -- "$listed"
"#;
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("it can be written");
    };
    write("_portcullis", &portcullis(&["completions", "zsh"]));
    // In place of the program, which asks the daemon for the names.
    write("portcullis", &format!("#!/bin/sh{FAKE_SERVICES}portcullis \"$@\"\n"));
    let program = folder.path().join("portcullis");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    for (line, expected) in [
        ("portcullis --mode ip", &["iptables", "ipvs"][..]),
        ("portcullis diff --output ", &["json", "text", "yaml"]),
        ("portcullis c", &["cleanup", "completions"]),
        ("portcullis services -n ", &["ops", "shop"]),
        ("portcullis services -n shop ", &["db", "web"]),
    ] {
        let last = expected.last().expect("several");
        let mut command = Command::new("zsh");
        command
            .args(["-f", "-c", SCRIPT])
            .env("FOLDER", folder.path())
            .env("PATH", &path)
            .env("LINE", line)
            .env("LAST", last);
        let output = command.env("TERM", "dumb").output().expect("zsh, which `make test` installs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let missing: Vec<_> = expected.iter().filter(|word| !text.contains(**word)).collect();
        assert!(missing.is_empty(), "{line}: {missing:?} is not in {text:?}");
    }
}

#[test]
fn other_shells_complete_every_flag() {
    for (shell, before) in [("zsh", "--"), ("fish", "-l ")] {
        let script = portcullis(&["completions", shell]);
        for flag in flags(&[]) {
            let name = flag.trim_start_matches('-');
            assert!(script.contains(&format!("{before}{name}")), "{flag} in {shell}");
        }
    }
}

#[test]
fn the_program_accepts_kube_proxys_flags_under_its_name() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let link = folder.path().join("kube-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portcullis"), &link).expect("links can be made");
    let config = folder.path().join("written.yaml");
    let mut command = Command::new(&link);
    command
        .args(["--proxy-mode=ipvs", "--hostname-override", "node-1"])
        .arg("--write-config-to")
        .arg(&config);
    let output = command.output().expect("the link leads to the binary");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = std::fs::read_to_string(config).expect("it is written");
    assert!(written.contains("mode: ipvs") && written.contains("hostnameOverride: node-1"), "{written}");
}

/// As in `portcullis render | head -1`.
#[test]
fn a_closed_output_pipe_does_not_change_the_exit_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
spec: {nodeName: node-a}
status: {podIPs: [{ip: 10.244.0.1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: node-a}
";
    std::fs::write(folder.path().join("all.yaml"), manifests).expect("it can be written to");
    let of_manifests = |command: &[&str]| {
        let manifests = folder.path().to_str().expect("a path of text");
        let options = ["--manifests", manifests, "--hostname-override=node-a"];
        command.iter().chain(&options).map(|word| (*word).to_owned()).collect::<Vec<String>>()
    };
    let plain = |command: &[&str]| command.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let rows = [
        plain(&["version"]),
        plain(&["--help"]),
        plain(&["man"]),
        plain(&["completions", "bash"]),
        of_manifests(&["render", "--mode=iptables"]),
        of_manifests(&["render", "--mode=ipvs"]),
        of_manifests(&["render", "--mode=nftables"]),
        of_manifests(&["render", "--mode=nftables", "--network-policy"]),
        of_manifests(&["explain", "--from", "shop/a", "--to", "shop/web"]),
        of_manifests(&["policy", "matrix", "--port", "80/tcp"]),
        of_manifests(&["services", "--all-namespaces"]),
        of_manifests(&["render", "--mode=nftables", "-o", "json"]),
        of_manifests(&["explain", "--from", "shop/a", "--to", "shop/web", "-o", "yaml"]),
        plain(&["version", "-o", "json"]),
        plain(&["lab", "list"]),
        plain(&["lab", "man"]),
    ];
    for arguments in rows {
        let run = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            command.args(&arguments).env_remove("RUST_LOG").stdout(stdout).stderr(Stdio::piped());
            let child = command.spawn().expect("the binary runs");
            child.wait_with_output().expect("it ends")
        };
        let read = run(Stdio::piped());
        assert!(!read.stdout.is_empty(), "{arguments:?} prints nothing");
        let (_, closed) = std::io::pipe().expect("a pipe");
        let unread = run(closed.into());
        // As in `portcullis render 2>&1 | head -1`.
        let (_, closed) = std::io::pipe().expect("a pipe");
        let errors = closed.try_clone().expect("a second descriptor");
        let mut both = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        both.args(&arguments).env_remove("RUST_LOG").stdout(closed).stderr(errors);
        assert_eq!(both.status().expect("it runs").code(), read.status.code(), "{arguments:?}");
        let output_text = String::from_utf8_lossy(&unread.stderr);
        assert_eq!(unread.status.code(), read.status.code(), "{arguments:?}: {output_text}");
        assert!(
            !output_text.contains("pipe") && !output_text.contains("panic"),
            "{arguments:?}: {output_text}"
        );
    }
}

#[test]
fn a_full_disk_fails_each_command_that_prints() {
    let rows: [&[&str]; 6] = [
        &["version"],
        &["--help"],
        &["render", "--help"],
        &["man"],
        &["completions", "bash"],
        &["lab", "list"],
    ];
    for arguments in rows {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).args(arguments).stdout(full).output();
        let output = output.expect("the binary runs");
        let output_text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output_text}");
        assert!(output_text.contains("No space left"), "{arguments:?}: {output_text}");
    }
}

/// Log and diff decide in the same way whether they use colors. Their output is a pipe here.
#[test]
fn colors_follow_the_environment_in_all_commands() {
    const NOTHING: [Option<(&str, &str)>; 2] = [None, None];
    let (no_color, force) = (Some(("NO_COLOR", "1")), Some(("CLICOLOR_FORCE", "1")));
    let rows =
        [(NOTHING, false), ([force, None], true), ([no_color, None], false), ([no_color, force], false)];
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let manifests = "{apiVersion: v1, kind: Node, metadata: {name: node-a}}\n---\n\
        {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}}\n";
    std::fs::write(folder.path().join("all.yaml"), manifests).expect("it can be written");
    namespace::inside(move || {
        for (variables, is_colored) in rows {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_LOG"] {
                command.env_remove(variable);
            }
            command.envs(variables.into_iter().flatten());
            // A setting without effect is a line of the log, and there are no rules yet.
            command.args([
                "diff",
                "--mode=nftables",
                "--hostname-override=node-a",
                "--profiling",
                "--manifests",
            ]);
            let output = command.arg(folder.path()).output().expect("the binary runs");
            let text =
                [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            assert_eq!(output.status.code(), Some(1), "{text:?}");
            assert!(text[0].contains("+++ ") && text[1].contains("--profiling has no effect"), "{text:?}");
            assert_eq!(
                text.each_ref().map(|text| text.contains('\x1b')),
                [is_colored; 2],
                "{variables:?}: {text:?}"
            );
        }
    });
}

/// The verbosity of a configuration file is that of the daemon.
#[test]
fn commands_log_warnings_and_errors_unless_a_flag_asks_for_more() {
    const UNUSED: &str = "ignoring objects of unused kinds";
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let [manifests, config] = ["manifests", "config.toml"].map(|name| folder.path().join(name));
    std::fs::create_dir(&manifests).expect("a folder");
    let objects = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}\n---\n\
                   {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}\n---\n\
                   {apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {nodeName: node-a}, status: {podIP: 10.244.1.5}}";
    std::fs::write(manifests.join("objects.yaml"), objects).expect("it can be written");
    std::fs::write(&config, "[logging]\nverbosity = 4\n").expect("it can be written");
    let [manifests, config] = [&manifests, &config].map(|path| path.to_str().expect("UTF-8"));
    let rows: [&[&str]; 7] = [
        &["render"],
        &["render", "--only-policies", "--network-policy"],
        &["services"],
        &["explain", "--from=10.0.0.1", "--to=10.244.1.5:80"],
        &["policy", "matrix", "--port=80/tcp"],
        &["diff"],
        &["migrate", "--to=nftables"],
    ];
    let output = |row: &[&str], flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(row).args(["--hostname-override=node-a", "--mode=nftables", "--manifests", manifests]);
        let output = command.args(flags).env_remove("RUST_LOG").output().expect("the binary runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_some_and(|code| code < 2), "{row:?} {flags:?}: {log}");
        log
    };
    for row in rows {
        for flags in [&[][..], &["--config", config]] {
            let log = output(row, flags);
            assert!(!log.contains("INFO") && !log.contains("DEBUG"), "{row:?} {flags:?}: {log}");
        }
        for flags in [["-v1", "--profiling"], ["-v4", "--profiling"]] {
            let log = output(row, &flags);
            assert!(
                log.contains(UNUSED) && log.contains("--profiling has no effect"),
                "{row:?} {flags:?}: {log}"
            );
        }
    }
}

/// Links this program into an empty folder, in which `portcullis-lab` is not installed.
fn alone() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for temporary files");
    let program = folder.path().join("portcullis");
    let own = env!("CARGO_BIN_EXE_portcullis");
    // Another user's file may not be linked.
    std::fs::hard_link(own, &program).or_else(|_| std::fs::copy(own, &program).map(drop)).expect("a copy");
    (folder, program)
}

#[test]
fn without_portcullis_lab_the_subcommand_lab_names_the_package() {
    let (_folder, program) = alone();
    for arguments in [&["lab"][..], &["lab", "run", "fixtures/demo"], &["lab", "--help"], &["man", "lab"]] {
        let output = Command::new(&program).args(arguments).env("PATH", "/nosuch").output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains("install the package portcullis-lab"), "{arguments:?}: {errors}");
    }
}

#[test]
fn the_subcommand_lab_becomes_portcullis_lab_with_its_exit_status() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, program) = alone();
    let on_path = folder.path().join("bin");
    std::fs::create_dir(&on_path).expect("a folder");
    let script = "#!/bin/sh\necho \"$0: $* ($PORTCULLIS_DAEMON)\"\nexit 42\n";
    let arguments = ["lab", "exec", "web", "--", "ls", "-l", "--a_b"];
    for place in [&on_path, folder.path()] {
        let lab = place.join("portcullis-lab");
        std::fs::write(&lab, script).expect("it can be written");
        std::fs::set_permissions(&lab, std::fs::Permissions::from_mode(0o755)).expect("it can be executable");
        let mut command = Command::new(&program);
        let output = command.args(arguments).env("PATH", &on_path).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(42), "{text}");
        let expected = format!("{}: exec web -- ls -l --a_b ({})\n", lab.display(), program.display());
        assert_eq!(text, expected);
    }
}

#[test]
fn a_matrix_without_pods_says_whether_labels_were_selected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifests = format!("--manifests={}", folder.path().display());
    for (selector, expected) in [
        (None, "no pod has addresses of its own"),
        (
            Some("--selector=app=web"),
            "--selector: no pod with addresses of its own has the labels \"app=web\"",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["policy", "matrix", &manifests, "--port=80/tcp"]);
        let output = command.args(selector).output().expect("the binary runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(expected), "{text}");
    }
}
