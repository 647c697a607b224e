//! Subcommands, and the daemon, which runs without one.

mod bundle;
mod cleanup;
mod completed_values;
mod completions;
mod diff;
mod explain;
mod lab;
mod man;
mod migrate;
mod observe;
mod output_format;
mod policy;
mod render;
mod services;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

pub use bundle::Bundle;
pub use cleanup::Cleanup;
pub use completions::{CompletionShell, Completions};
pub use diff::Diff;
pub use explain::{Explain, ProtocolArgument};
pub use man::Man;
pub use migrate::Migrate;
pub use observe::{Observe, ObserveFormat, VerdictArgument};
pub use output_format::OutputFormat;
pub use policy::{Matrix, Policy};
pub use render::{AddressFamily, Render};
pub use services::{Services, ServicesFormat};
pub use status::Status;

use super::flags;
use super::validated::KubectlCredentials;

/// Command of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the daemon (no subcommand).
    Daemon(Daemon),
    /// Write the settings to this file and exit (`--write-config-to`).
    WriteConfig(PathBuf),
    /// Remove the rules of all proxy modes from the kernel and exit (`cleanup`, `--cleanup`).
    Cleanup(Cleanup),
    /// Print the rules for a cluster state, without changing the kernel.
    Render(Render),
    /// Print the differences between the kernel's rules and the rules for a cluster state.
    Diff(Diff),
    /// Explain whether a connection is delivered, where, and by which rules.
    Explain(Explain),
    /// Show the Services of a node, and why they do not answer.
    Services(Services),
    /// Print the state of the daemon that runs on this node.
    Status(Status),
    /// Print dropped packets or connections as they happen.
    Observe(Observe),
    /// Evaluate network policies.
    Policy(Policy),
    /// Switch this node to another proxy mode, or print the plan for it.
    Migrate(Migrate),
    /// Write a support archive about this node.
    Bundle(Bundle),
    /// Hold the namespaces of a pod.
    Pause,
    /// Create a throwaway cluster in network namespaces.
    Lab(Vec<OsString>),
    /// Print a manual page.
    Man(Man),
    /// Print a shell completion script.
    Completions(Completions),
    /// Print the version (`version`, `--version`, `-V`).
    Version(OutputFormat),
}

/// Options of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// Sync once and exit, leaving the rules (`--once`).
    pub once: bool,
    /// Perform the setup that needs full root privileges and exit (`--init-only`).
    pub init_only: bool,
    /// Ignore the NetworkPolicy lock of another process (`--force`).
    pub force: bool,
}

/// Returns the complete clap command, for manual pages.
pub(crate) fn command_line() -> clap::Command {
    let mut command = parser();
    // Adds clap's own arguments and subcommands, such as --help and help.
    command.build();
    command
}

/// Returns the complete clap command with the verbs of `lab`, for shell completions.
pub(crate) fn completed_command_line() -> clap::Command {
    let mut command = completed_values::add(parser()).mut_subcommand("lab", |_| lab::with_verbs());
    command.build();
    command
}

/// Returns true if a subcommand, or a subcommand of it, accepts the settings of the daemon.
pub(crate) fn has_settings(name: &str) -> bool {
    let has = |command: &clap::Command| command.get_arguments().any(|argument| argument.get_id() == "config");
    let parser = parser();
    parser.find_subcommand(name).is_some_and(|command| has(command) || command.get_subcommands().any(has))
}

/// Returns the clap command.
pub(super) fn parser() -> clap::Command {
    let version = Arg::new("version")
        .long("version")
        .short('V')
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .action(ArgAction::Append)
        .help("Print the version and the commit, and exit");
    let status = Status::augment_args(with_settings_shown(clap::Command::new("status"), &["config", "socket"]))
        .about(
            "Print the state of the daemon that runs on this node; exit status 1 if it is not healthy, 2 if that cannot be determined",
        )
        .after_help(ALL_SETTINGS);
    let observe =
        Observe::augment_args(with_settings_shown(clap::Command::new("observe"), &["config", "socket"]))
            .about("Print packets that policies or source ranges drop, or connections, as they happen")
            .after_help(OBSERVE_EXAMPLES);
    let render = Render::augment_args(reading_cluster(clap::Command::new("render")))
        .about("Print the rules for a cluster state, without changing the kernel")
        .after_help(ALL_SETTINGS);
    let diff = Diff::augment_args(reading_cluster(clap::Command::new("diff")))
        .about(
            "Print the differences between the kernel's rules and the rules for a cluster state; exit status 1 if there are any",
        )
        .after_help(ALL_SETTINGS);
    let explain = Explain::augment_args(reading_cluster(clap::Command::new("explain")))
        .about("Explain whether a connection is delivered, where, and by which rules; exit status 1 if it is not")
        .after_help(EXPLAIN_EXAMPLES);
    let migrate = Migrate::augment_args(reading_cluster(clap::Command::new("migrate")).mut_arg("mode", |mode| mode.hide(true)))
        .about("Plan the switch of this node to another proxy mode, and with --apply perform it; without, nothing is written")
        .after_help(MIGRATE_EXAMPLES);
    let services = Services::augment_args(reading_cluster(clap::Command::new("services")))
        .about("Show the Services of this node, their endpoints, and why a Service does not answer")
        .after_help(SERVICES_EXAMPLES);
    let matrix = Matrix::augment_args(reading_cluster(clap::Command::new("matrix")))
        .about("Print which pods can connect to which")
        .after_help(ALL_SETTINGS);
    let policy = clap::Command::new("policy")
        .about("Evaluate network policies")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(matrix);
    clap::Command::new("portcullis")
        .about("Serves Kubernetes Services on this node like kube-proxy, and enforces NetworkPolicy")
        .disable_version_flag(true)
        .args_conflicts_with_subcommands(true)
        .args(flags::arguments())
        .arg(version)
        .subcommand(status)
        .subcommand(observe)
        .subcommand(render)
        .subcommand(diff)
        .subcommand(explain)
        .subcommand(services)
        .subcommand(policy)
        .subcommand(migrate)
        .subcommand(
            Cleanup::augment_args(with_settings(clap::Command::new("cleanup")))
                .args(flags::arguments().into_iter().filter(|argument| argument.get_id().as_str() == "force"))
                .about("Remove the rules of all proxy modes from the kernel; exit status 1 if something could not be removed"),
        )
        .subcommand(
            Bundle::augment_args(with_settings(clap::Command::new("bundle")))
                .about("Write a support archive about this node, without secrets; exit status 1 if a part is missing")
                .after_help(ALL_SETTINGS),
        )
        .subcommand(lab::subcommand())
        .subcommand(
            Man::augment_args(clap::Command::new("man")).about("Print a manual page, for man -l - or a file"),
        )
        .subcommand(
            Completions::augment_args(clap::Command::new("completions"))
                .about("Print a shell completion script"),
        )
        .subcommand(
            clap::Command::new("pause")
                .about("Hold the namespaces of a pod and reap its zombies until SIGTERM; for the runtime's sandbox image")
                .arg(version_flag()),
        )
        .subcommand(version_subcommand())
}

fn version_flag() -> Arg {
    Arg::new("version")
        .long("version")
        .short('V')
        .action(ArgAction::SetTrue)
        .help("Print the version and the commit, and exit")
}

fn version_subcommand() -> clap::Command {
    let output = Arg::new("output")
        .long("output")
        .short('o')
        .value_name("FORMAT")
        .value_parser(clap::value_parser!(OutputFormat))
        .default_value("text")
        .help("Output format");
    clap::Command::new("version").about("Print the version and the commit").arg(output)
}

const ALL_SETTINGS: &str = "All settings of the daemon are also flags of this command (see portcullis --help) and override the file.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  portcullis migrate --to nftables --config FILE             print the plan and the affected connections
  portcullis migrate --to nftables --config FILE --apply     perform it, after kube-proxy is stopped on this node

The exit status is 0 on success, and 1 if something prevents the switch or part of it failed.
All settings of the daemon are also flags of this command (see portcullis --help) and override the file.";

/// The end of the help of `observe`.
const OBSERVE_EXAMPLES: &str = "\
The daemon must run. Rules log drops only while this command runs, and at most 10000 packets a second each.

Examples:
  portcullis observe --follow                               drops by policies and loadBalancerSourceRanges
  portcullis observe -n shop --to svc/db --for 5m           drops on the way to a Service
  portcullis observe --from shop/web-1 -o json --count 1    the next drop of a pod's packet
  portcullis observe --connections -f --port 5432           new and ended connections to a port";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  portcullis explain --from shop/client-7 --to shop/web
  portcullis explain --from shop/client-7 --to shop/web-1:8080
  portcullis explain --from 198.51.100.7 --to node/node-1:30080
  portcullis explain --from node/node-1 --to 10.96.0.10:53/udp --manifests FOLDER
  portcullis explain -n shop --from deploy/client --to http://web:8080/ --context production
  portcullis explain -n shop --from pod/client-7 --to svc/web --probe         send a packet, as root on the node of the client

All settings of the daemon are also flags of this command (see portcullis --help) and override the file.";

const SERVICES_EXAMPLES: &str = "\
Examples:
  portcullis services -A                       all Services, as the daemon on this node serves them
  portcullis services -A --problems            only those that do not answer, with the reasons
  portcullis services -n shop web              one Service with its frontends and endpoints
  portcullis services -A --manifests FOLDER    without a daemon, as this node would serve them

Without --manifests, --kubeconfig, --context, --master, --node or --host, the running daemon is asked. The exit status is 0 on success, 1 if --problems
found any, and 2 if the Services could not be read.
All settings of the daemon are also flags of this command (see portcullis --help) and override the file.";

/// The flags that name a source of the cluster state.
const SOURCES: [&str; 4] = ["manifests", "kubeconfig", "master", CONTEXT];

/// Settings in the help of a subcommand; it accepts all others as well.
const SHOWN: [&str; 4] = ["config", "mode", "manifests", "kubeconfig"];

/// Flags that only the daemon has.
const DAEMON_ONLY: [&str; 5] = ["cleanup", "force", "init-only", "once", "write-config-to"];

fn with_settings(command: clap::Command) -> clap::Command {
    with_settings_shown(command, &SHOWN)
}

/// Adds the settings, and the arguments of commands that read an API server with the credentials of kubectl.
fn reading_cluster(command: clap::Command) -> clap::Command {
    with_settings(command).arg(
        Arg::new(CONTEXT)
            .long(CONTEXT)
            .value_name("NAME")
            .help("Context of the kubeconfig [default: its current context]. Without --kubeconfig, that of $KUBECONFIG or ~/.kube/config is used, else the pod's service account"),
    )
}

/// The ID of `--context`.
const CONTEXT: &str = "context";

/// Returns the use of kubectl's credentials by a subcommand; `None` if it does not read an API server, and for the daemon.
pub(super) fn kubectl_credentials(matches: &ArgMatches) -> Option<KubectlCredentials> {
    let context = matches.try_get_one::<String>(CONTEXT).ok()?;
    Some(KubectlCredentials { context: context.cloned() })
}

fn with_settings_shown(command: clap::Command, shown: &[&str]) -> clap::Command {
    let settings =
        flags::arguments().into_iter().filter(|argument| !DAEMON_ONLY.contains(&argument.get_id().as_str()));
    command.args(settings.map(|argument| {
        let shown = shown.contains(&argument.get_id().as_str());
        let argument = argument.hide(!shown).help_heading(None::<&str>);
        match argument.get_id().as_str() {
            "config" => {
                argument.help("Read settings from this file: a KubeProxyConfiguration or Portcullis TOML")
            }
            "mode" => argument.help("Proxy mode: iptables (the default), ipvs or nftables"),
            _ => argument,
        }
    }))
}

/// Returns the subcommand and the matches with its setting flags, which are `None` for subcommands without settings.
pub(super) fn subcommand(
    matches: &ArgMatches,
) -> Result<Option<(Command, Option<&ArgMatches>)>, clap::Error> {
    let Some((name, inner)) = matches.subcommand() else { return Ok(None) };
    Ok(Some(match name {
        "status" => (Command::Status(Status::from_arg_matches(inner)?), Some(inner)),
        "observe" => (Command::Observe(Observe::from_arg_matches(inner)?), Some(inner)),
        "render" => (Command::Render(Render::from_arg_matches(inner)?), Some(inner)),
        "diff" => (Command::Diff(Diff::from_arg_matches(inner)?), Some(inner)),
        "explain" => (Command::Explain(Explain::from_arg_matches(inner)?), Some(inner)),
        "services" => {
            let is_given = |flag: &str| inner.value_source(flag) == Some(ValueSource::CommandLine);
            let has_source = SOURCES.into_iter().any(is_given);
            let services = Services { has_source, ..Services::from_arg_matches(inner)? };
            (Command::Services(services), Some(inner))
        }
        "policy" => {
            let Some(("matrix", inner)) = inner.subcommand() else { return Ok(None) };
            (Command::Policy(Policy::Matrix(Matrix::from_arg_matches(inner)?)), Some(inner))
        }
        "migrate" => (Command::Migrate(Migrate::from_arg_matches(inner)?), Some(inner)),
        "cleanup" => (Command::Cleanup(Cleanup::from_arg_matches(inner)?), Some(inner)),
        "bundle" => (Command::Bundle(Bundle::from_arg_matches(inner)?), Some(inner)),
        "man" => (Command::Man(Man::from_arg_matches(inner)?), None),
        "completions" => (Command::Completions(Completions::from_arg_matches(inner)?), None),
        "pause" if inner.get_flag("version") => (Command::Version(OutputFormat::Text), None),
        "pause" => (Command::Pause, None),
        "lab" => (Command::Lab(lab::arguments(inner)), None),
        _ => {
            let output = inner.get_one::<OutputFormat>("output").copied().unwrap_or_default();
            (Command::Version(output), None)
        }
    }))
}
