//! What the program is asked to do: the subcommands, and the daemon without one.

mod completions;
mod diff;
mod explain;
mod lab;
mod man;
mod migrate;
mod policy;
mod render;

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};

pub use completions::{CompletionShell, Completions};
pub use diff::Diff;
pub use explain::{Explain, OutputFormat, ProtocolArgument};
pub use lab::{Lab, LabCluster, LabName};
pub use man::Man;
pub use migrate::Migrate;
pub use policy::{Matrix, Policy};
pub use render::{AddressFamily, Render};

use super::flags;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve the node (no subcommand).
    Daemon(Daemon),
    /// Write the settings as a `KubeProxyConfiguration` to this file, and exit (`--write-config-to`).
    WriteConfig(PathBuf),
    /// Remove what any mode has left in the kernel, and exit (`cleanup`, `--cleanup`).
    Cleanup(Cleanup),
    /// Print the rules for a state of the cluster, without touching the kernel.
    Render(Render),
    /// Print how the kernel differs from what a state of the cluster asks for.
    Diff(Diff),
    /// Say whether a connection arrives, where, and by which rules.
    Explain(Explain),
    /// Print what policies come to.
    Policy(Policy),
    /// Move this node to another mode, or say what that comes to.
    Migrate(Migrate),
    /// Build a throwaway cluster in network namespaces.
    Lab(Lab),
    /// Print a page of the manual.
    Man(Man),
    /// Print a script that completes command lines in a shell.
    Completions(Completions),
    /// Print the version (`version`, `--version`).
    Version,
}

/// How long the daemon is to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// Sync once and exit, leaving the rules (`--once`).
    pub once: bool,
    /// Do what needs full root privileges, and exit (`--init-only`).
    pub init_only: bool,
    /// Do not respect the NetworkPolicy lock of another process (`--force`).
    pub force: bool,
}

/// How everything is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Remove the NetworkPolicy table also while another process enforces policies (`--force`).
    pub force: bool,
}

/// The command line as clap knows it, whole: for the manual, and for shells to complete.
pub(crate) fn command_line() -> clap::Command {
    let mut command = parser();
    // Fills in what clap adds by itself, such as --help and help.
    command.build();
    command
}

/// The command line as clap knows it.
pub(super) fn parser() -> clap::Command {
    let version = Arg::new("version")
        .long("version")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .action(ArgAction::Append)
        .help("Print the version, and exit");
    let render = Render::augment_args(with_settings(clap::Command::new("render")))
        .about("Print the rules for a state of the cluster, without touching the kernel")
        .after_help(ALL_SETTINGS);
    let diff = Diff::augment_args(with_settings(clap::Command::new("diff")))
        .about(
            "Print how the kernel differs from what a state of the cluster asks for; exit with 1 if it does",
        )
        .after_help(ALL_SETTINGS);
    let explain = Explain::augment_args(with_settings(clap::Command::new("explain")))
        .about("Say whether a connection arrives, where, and by which rules; exit with 1 if it does not")
        .after_help(EXPLAIN_EXAMPLES);
    let migrate = Migrate::augment_args(with_settings(clap::Command::new("migrate")).mut_arg("mode", |mode| mode.hide(true)))
        .about("Say what moving this node to another mode comes to, and with --apply do it; nothing is written without")
        .after_help(MIGRATE_EXAMPLES);
    let matrix = Matrix::augment_args(with_settings(clap::Command::new("matrix")))
        .about("Print who can talk to whom")
        .after_help(ALL_SETTINGS);
    let policy = clap::Command::new("policy")
        .about("Print what policies come to")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(matrix);
    clap::Command::new("portcullis")
        .about("Serves Kubernetes Services on this node from the kernel, as kube-proxy does")
        .disable_version_flag(true)
        .args_conflicts_with_subcommands(true)
        .args(flags::arguments())
        .arg(version)
        .subcommand(render)
        .subcommand(diff)
        .subcommand(explain)
        .subcommand(policy)
        .subcommand(migrate)
        .subcommand(
            with_settings(clap::Command::new("cleanup"))
                .args(flags::arguments().into_iter().filter(|argument| argument.get_id().as_str() == "force"))
                .about("Remove what any mode has left in the kernel"),
        )
        .subcommand(
            Lab::augment_subcommands(clap::Command::new("lab"))
                .about("Build a throwaway cluster in network namespaces, and try its Services")
                .subcommand_required(true)
                .arg_required_else_help(true),
        )
        .subcommand(
            Man::augment_args(clap::Command::new("man"))
                .about("Print a page of the manual, for man -l - or a file"),
        )
        .subcommand(
            Completions::augment_args(clap::Command::new("completions"))
                .about("Print a script that completes command lines in a shell"),
        )
        .subcommand(clap::Command::new("version").about("Print the version"))
}

const ALL_SETTINGS: &str =
    "All settings of the daemon are flags here, too (see portcullis --help), and beat those of the file.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  portcullis migrate --to nftables --config FILE             what would be written, removed, and is at stake
  portcullis migrate --to nftables --config FILE --apply     do it, once kube-proxy is stopped on this node

The exit status is 0 if all is well, 1 if something is in the way or not everything could be done.
All settings of the daemon are flags here, too (see portcullis --help), and beat those of the file.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  portcullis explain --from shop/client-7 --to shop/web
  portcullis explain --from shop/client-7 --to shop/web-1:8080
  portcullis explain --from 198.51.100.7 --to node/node-1:30080
  portcullis explain --from node/node-1 --to 10.96.0.10:53/udp --manifests FOLDER

All settings of the daemon are flags here, too (see portcullis --help), and beat those of the file.";

/// The settings that the help of a subcommand shows; all others are accepted as well.
const SHOWN: [&str; 4] = ["config", "mode", "manifests", "kubeconfig"];

/// What only the daemon can be told.
const DAEMON_ONLY: [&str; 5] = ["cleanup", "force", "init-only", "once", "write-config-to"];

fn with_settings(command: clap::Command) -> clap::Command {
    let settings =
        flags::arguments().into_iter().filter(|argument| !DAEMON_ONLY.contains(&argument.get_id().as_str()));
    command.args(settings.map(|argument| {
        let shown = SHOWN.contains(&argument.get_id().as_str());
        let argument = argument.hide(!shown).help_heading(None::<&str>);
        match argument.get_id().as_str() {
            "config" => argument
                .help("Read the settings from this file: a KubeProxyConfiguration or Portcullis' TOML"),
            "mode" => argument.help("How to serve Services: iptables (the default), ipvs or nftables"),
            _ => argument,
        }
    }))
}

/// The subcommand, and the matches that hold the settings' flags; `None` for those without settings.
pub(super) fn subcommand(
    matches: &ArgMatches,
) -> Result<Option<(Command, Option<&ArgMatches>)>, clap::Error> {
    let Some((name, inner)) = matches.subcommand() else { return Ok(None) };
    Ok(Some(match name {
        "render" => (Command::Render(Render::from_arg_matches(inner)?), Some(inner)),
        "diff" => (Command::Diff(Diff::from_arg_matches(inner)?), Some(inner)),
        "explain" => (Command::Explain(Explain::from_arg_matches(inner)?), Some(inner)),
        "policy" => {
            let Some(("matrix", inner)) = inner.subcommand() else { return Ok(None) };
            (Command::Policy(Policy::Matrix(Matrix::from_arg_matches(inner)?)), Some(inner))
        }
        "migrate" => (Command::Migrate(Migrate::from_arg_matches(inner)?), Some(inner)),
        "cleanup" => (Command::Cleanup(Cleanup::default()), Some(inner)),
        "man" => (Command::Man(Man::from_arg_matches(inner)?), None),
        "completions" => (Command::Completions(Completions::from_arg_matches(inner)?), None),
        "lab" => (Command::Lab(Lab::from_arg_matches(inner)?), None),
        _ => (Command::Version, None),
    }))
}
