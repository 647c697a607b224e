//! Arguments of `portcullis lab`.

use std::ffi::OsString;

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgMatches, ValueHint};

/// Returns the subcommand, which passes all arguments on to `portcullis-lab`, `--help` included.
pub(super) fn subcommand() -> clap::Command {
    let arguments = Arg::new("arguments")
        .value_name("ARGUMENT")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(OsStringValueParser::new())
        .help(
            "Arguments of portcullis-lab: run, up, list, apply, down, logs, exec, explain, observe; see portcullis-lab --help",
        );
    clap::Command::new("lab").about(ABOUT).disable_help_flag(true).arg(arguments)
}

const ABOUT: &str =
    "Build a throwaway cluster in network namespaces, and try its Services (runs portcullis-lab)";

/// The verbs of `portcullis-lab`: name, description and names of arguments.
const VERBS: [(&str, &str, &[&str]); 11] = [
    (
        "run",
        "Create a cluster, connect to every Service, print the results, and delete it",
        &["mode", "pod-network", "daemon", "junit", "output", "folder"],
    ),
    ("up", "Create a cluster, and keep it", &["name", "mode", "pod-network", "daemon", "folder"]),
    ("list", "List the labs on this machine", &["output"]),
    ("apply", "Apply another version of the manifests to a running cluster", &["name", "folder"]),
    ("down", "Delete a running cluster", &["name"]),
    ("logs", "Print the logs of the daemons", &["name", "node"]),
    ("exec", "Run a command in a pod of a running cluster", &["name", "pod"]),
    ("explain", "Explain a connection in a running cluster", &["name"]),
    ("observe", "Print dropped packets or connections of a running cluster", &["name", "of-node"]),
    ("man", "Print a page of the manual", &["all-to", "command"]),
    ("completions", "Print a shell completion script", &["shell"]),
];

/// Returns the subcommand with the verbs of `portcullis-lab`, which may not be installed, for shell completions.
pub(super) fn with_verbs() -> clap::Command {
    let verbs = VERBS.map(|(name, about, arguments)| {
        clap::Command::new(name).about(about).args(arguments.iter().map(|name| argument(name)))
    });
    clap::Command::new("lab").about(ABOUT).subcommands(verbs)
}

/// Returns an argument of a verb.
fn argument(name: &'static str) -> Arg {
    let argument = Arg::new(name);
    match name {
        "name" => argument.long(name).help("Name of the lab"),
        // `logs` has the node as its argument.
        "of-node" => argument.long("node").help("Only the events of this node"),
        "mode" => {
            argument.long(name).value_parser(["iptables", "ipvs", "nftables"]).help("Proxy mode of the nodes")
        }
        "pod-network" => argument
            .long(name)
            .value_parser(["host-gw", "vxlan", "cross-subnet"])
            .help("Pod network of the nodes, which connects the pods in place of the lab"),
        "daemon" => {
            argument.long(name).value_hint(ValueHint::ExecutablePath).help("Program that runs on every node")
        }
        "junit" => argument
            .long(name)
            .value_hint(ValueHint::FilePath)
            .help("Write the results to a file as JUnit XML"),
        "output" => {
            argument.long(name).short('o').value_parser(["text", "json", "yaml"]).help("Output format")
        }
        "all-to" => argument.long(name).value_hint(ValueHint::DirPath).help("Write all pages into a folder"),
        "folder" => argument.value_hint(ValueHint::DirPath).help("Folder of manifests"),
        "shell" => argument.value_parser(["bash", "zsh", "fish"]),
        _ => argument,
    }
}

/// Returns the arguments of `portcullis-lab`.
pub(super) fn arguments(matches: &ArgMatches) -> Vec<OsString> {
    matches.get_many::<OsString>("arguments").into_iter().flatten().cloned().collect()
}
