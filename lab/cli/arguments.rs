//! The command line of `portcullis-lab`.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use portcullis_lab::{DataPath, PodNetworkMode};

use super::document::OutputFormat;

/// Create a throwaway cluster in network namespaces, and connect to its Services.
#[derive(Parser, Debug)]
#[command(
    name = "portcullis-lab",
    bin_name = "portcullis-lab",
    version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("PORTCULLIS_COMMIT"), ")"),
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    /// The verb
    #[command(subcommand)]
    pub(crate) command: Lab,
}

/// Returns the command line as clap knows it, for the manual and for shell completions.
pub(crate) fn command_line() -> clap::Command {
    let mut command = Arguments::command();
    // Adds what clap provides itself, such as --help and help.
    command.build();
    command
}

/// A verb.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lab {
    /// Create the cluster of a folder of manifests, connect to every Service from every client, print the results, and
    /// delete the cluster
    Run {
        #[command(flatten)]
        cluster: LabCluster,
        #[command(flatten)]
        results: LabResults,
    },
    /// Create the cluster of a folder of manifests, and keep it
    Up {
        /// Name of the lab [default: generated]
        #[arg(long, value_name = "NAME", value_parser = name)]
        name: Option<String>,
        #[command(flatten)]
        cluster: LabCluster,
    },
    /// List the labs on this machine
    List {
        /// Output format
        #[arg(long, short, value_name = "FORMAT", default_value = "text")]
        output: OutputFormat,
    },
    /// Explain a connection in a running cluster, with the arguments of portcullis explain
    Explain {
        #[command(flatten)]
        lab: LabName,
        /// Arguments of portcullis explain, such as --from web-1 --to shop/web
        #[arg(required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Print dropped packets or connections of a running cluster as they happen, with the arguments of portcullis observe
    Observe {
        #[command(flatten)]
        lab: LabName,
        /// Only the events of this node [default: of all nodes, each line with the name of its node]
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Arguments of portcullis observe, such as --follow or --to shop/web
        #[arg(num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Process that `up` leaves running to keep the cluster
    #[command(hide = true)]
    Keep,
    /// Apply another version of the manifests to a running cluster
    Apply {
        #[command(flatten)]
        lab: LabName,
        /// Folder of manifests
        folder: PathBuf,
    },
    /// Delete a running cluster
    Down(LabName),
    /// Print the log of the daemon on one node, or on all nodes
    Logs {
        #[command(flatten)]
        lab: LabName,
        /// Name of the node
        node: Option<String>,
    },
    /// Run a command in a pod of a running cluster; exits with the status of the command, as a shell does
    Exec {
        #[command(flatten)]
        lab: LabName,
        /// Pod (NAME or NAMESPACE/NAME), node, or "outside"
        pod: String,
        /// Command and arguments, after --
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Print a page of the manual, for man -l - or a file
    Man(Man),
    /// Print a script that completes command lines in a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: CompletionShell,
    },
}

/// The cluster to build.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabCluster {
    /// Folder of manifests
    pub(crate) folder: PathBuf,
    /// Proxy mode of the nodes: iptables, ipvs or nftables
    #[arg(long, value_name = "MODE", default_value = "iptables", value_parser = mode)]
    pub(crate) mode: LabMode,
    /// Pod network of the nodes: host-gw, vxlan or cross-subnet. It connects the pods in place of the lab
    #[arg(long, value_name = "MODE", value_parser = pod_network)]
    pub(crate) pod_network: Option<PodNetworkMode>,
    /// Program that runs on every node [default: $PORTCULLIS_DAEMON, or portcullis beside this program or on PATH]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) daemon: Option<PathBuf>,
    /// Additional flags for the daemons, after --
    #[arg(last = true, value_name = "FLAG")]
    pub(crate) flags: Vec<String>,
}

/// The outputs of a run.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabResults {
    /// Write the results to a file as JUnit XML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
}

/// The lab that a verb is about.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabName {
    /// Name of the lab; required if several are running
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// A page of the manual.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Man {
    /// The verb whose page is printed [default: portcullis-lab itself]
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,
    /// Write all pages into a folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub(crate) all_to: Option<PathBuf>,
}

/// A shell with completion scripts.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompletionShell {
    /// For /usr/share/bash-completion/completions
    Bash,
    /// For a folder of $fpath, as _portcullis-lab
    Zsh,
    /// For ~/.config/fish/completions
    Fish,
}

/// A proxy mode of the daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabMode {
    Iptables,
    Ipvs,
    Nftables,
}

impl LabMode {
    const ALL: [Self; 3] = [Self::Iptables, Self::Ipvs, Self::Nftables];

    /// Returns the value of `--mode`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }

    /// Returns the kernel data path of the mode.
    pub(crate) fn data_path(self) -> DataPath {
        match self {
            Self::Ipvs => DataPath::Ipvs,
            Self::Iptables | Self::Nftables => DataPath::Netfilter,
        }
    }
}

fn name(name: &str) -> Result<String, String> {
    portcullis_lab::check_name(name).map(|()| name.to_owned())
}

fn pod_network(name: &str) -> Result<PodNetworkMode, String> {
    let names = || PodNetworkMode::ALL.map(PodNetworkMode::name).join(", ");
    let found = PodNetworkMode::ALL.into_iter().find(|mode| mode.name() == name);
    found.ok_or_else(|| format!("expected one of {}", names()))
}

fn mode(name: &str) -> Result<LabMode, String> {
    let names = || LabMode::ALL.map(LabMode::name).join(", ");
    let found = LabMode::ALL.into_iter().find(|mode| mode.name() == name);
    found.ok_or_else(|| format!("expected one of {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Lab, clap::Error> {
        let all = ["portcullis-lab"].iter().chain(arguments);
        Arguments::try_parse_from(all).map(|arguments| arguments.command)
    }

    #[test]
    fn verbs_are_parsed() {
        let cluster = |mode| LabCluster {
            folder: "f".into(),
            mode,
            pod_network: None,
            daemon: None,
            flags: Vec::new(),
        };
        let run = |cluster| Lab::Run { cluster, results: LabResults::default() };
        let named = |name: &str| LabName { name: Some(name.into()) };
        let rows: Vec<(&[&str], Lab)> = vec![
            (&["run", "f"], run(cluster(LabMode::Iptables))),
            (&["run", "--mode=ipvs", "f"], run(cluster(LabMode::Ipvs))),
            (
                &["run", "--pod-network=vxlan", "f"],
                run(LabCluster { pod_network: Some(PodNetworkMode::Vxlan), ..cluster(LabMode::Iptables) }),
            ),
            (
                &["run", "--daemon", "/p", "f"],
                run(LabCluster { daemon: Some("/p".into()), ..cluster(LabMode::Iptables) }),
            ),
            (
                &["run", "f", "--junit", "a.xml", "-o", "json"],
                Lab::Run {
                    cluster: cluster(LabMode::Iptables),
                    results: LabResults { junit: Some("a.xml".into()), output: OutputFormat::Json },
                },
            ),
            (
                &["explain", "--name", "a", "--from", "b", "--to", "c", "-o", "json"],
                Lab::Explain {
                    lab: named("a"),
                    arguments: ["--from", "b", "--to", "c", "-o", "json"].map(str::to_owned).to_vec(),
                },
            ),
            (
                &["observe", "--node", "node-1", "--name=a", "-f", "--to", "c"],
                Lab::Observe {
                    lab: named("a"),
                    node: Some("node-1".into()),
                    arguments: ["-f", "--to", "c"].map(str::to_owned).to_vec(),
                },
            ),
            (&["observe"], Lab::Observe { lab: LabName::default(), node: None, arguments: Vec::new() }),
            (&["up", "f", "--mode", "ipvs"], Lab::Up { name: None, cluster: cluster(LabMode::Ipvs) }),
            (
                &["up", "--name", "my-lab", "f", "--", "--masquerade-all", "-v4"],
                Lab::Up {
                    name: Some("my-lab".into()),
                    cluster: LabCluster {
                        flags: vec!["--masquerade-all".into(), "-v4".into()],
                        ..cluster(LabMode::Iptables)
                    },
                },
            ),
            (&["list"], Lab::List { output: OutputFormat::Text }),
            (&["down"], Lab::Down(LabName::default())),
            (&["down", "--name=a"], Lab::Down(named("a"))),
            (&["apply", "f", "--name=a"], Lab::Apply { lab: named("a"), folder: "f".into() }),
            (&["logs"], Lab::Logs { lab: LabName::default(), node: None }),
            (&["logs", "--name=a", "node-1"], Lab::Logs { lab: named("a"), node: Some("node-1".into()) }),
            (
                &["exec", "web", "--", "ls", "--a_b"],
                Lab::Exec {
                    lab: LabName::default(),
                    pod: "web".into(),
                    command: vec!["ls".into(), "--a_b".into()],
                },
            ),
        ];
        for (arguments, expected) in rows {
            assert_eq!(parse(arguments).unwrap(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn incomplete_command_lines_are_rejected() {
        let rows: [&[&str]; 5] = [
            &[],
            &["exec", "a"],
            &["run", "--mode=userspace", "f"],
            &["run", "--pod-network=off", "f"],
            &["frobnicate"],
        ];
        for arguments in rows {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
