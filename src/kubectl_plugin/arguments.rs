//! The command line of the plugin.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Args, Command, FromArgMatches};

/// Flags of kubectl with a value, which are passed on to it.
const KUBECTL_FLAGS: [(&str, &str); 11] = [
    ("kubeconfig", "Kubeconfig to use"),
    ("context", "Context of the kubeconfig"),
    ("cluster", "Cluster of the kubeconfig"),
    ("user", "User of the kubeconfig"),
    ("as", "User to impersonate"),
    ("as-group", "Group to impersonate"),
    ("server", "Address of the API server"),
    ("token", "Bearer token"),
    ("certificate-authority", "Certificate authority of the API server"),
    ("tls-server-name", "Name in the certificate of the API server"),
    ("request-timeout", "Time limit of a request"),
];

/// A parsed command line.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Arguments {
    /// Node whose daemon runs the command
    #[arg(long, value_name = "NODE")]
    pub(super) node: Option<String>,
    /// Namespace of the daemon's pods [default: all]
    #[arg(long, value_name = "NAME")]
    pub(super) daemon_namespace: Option<String>,
    /// Labels of the daemon's pods [default: app.kubernetes.io/name=portcullis, or k8s-app=kube-proxy if there are none]
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(super) selector: Option<String>,
    /// Container of the daemon [default: the first one]
    #[arg(long, value_name = "NAME")]
    pub(super) container: Option<String>,
    /// Flags for kubectl.
    #[arg(skip)]
    pub(super) kubectl_flags: Vec<String>,
    /// Command of portcullis.
    #[arg(skip)]
    pub(super) command: String,
    /// Its arguments.
    #[arg(skip)]
    pub(super) command_arguments: Vec<String>,
}

impl Arguments {
    /// Parses a command line, including the program name.
    ///
    /// # Errors
    /// The error of clap, also for `--help`.
    pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = command_line().try_get_matches_from(arguments)?;
        let mut parsed = Arguments::from_arg_matches(&matches)?;
        for (name, _) in KUBECTL_FLAGS {
            let values = matches.get_many::<String>(name).into_iter().flatten();
            parsed.kubectl_flags.extend(values.map(|value| format!("--{name}={value}")));
        }
        let mut words = matches.get_many::<String>("command").into_iter().flatten().cloned();
        parsed.command = words.next().unwrap_or_default();
        parsed.command_arguments = words.collect();
        Ok(parsed)
    }
}

/// Returns the command line as clap knows it.
pub(super) fn command_line() -> Command {
    let of_kubectl = KUBECTL_FLAGS.map(|(name, help)| {
        Arg::new(name)
            .long(name)
            .value_name("VALUE")
            .help(help)
            .action(ArgAction::Append)
            .help_heading("Options for kubectl")
    });
    let command = Arg::new("command")
        .value_name("COMMAND")
        .num_args(1..)
        .required(true)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .help("Command of portcullis with its arguments; options of this program come before it");
    Arguments::augment_args(Command::new("kubectl-portcullis"))
        .bin_name("kubectl portcullis")
        .about("Run the commands of portcullis in the pod of a node's daemon")
        .version(crate::version::VERSION)
        .args(of_kubectl)
        .arg(command)
        .after_help(EXAMPLES)
}

const EXAMPLES: &str = "\
Examples:
  kubectl portcullis status                              all nodes, one line each, worst first
  kubectl portcullis --node node-1 status
  kubectl portcullis --node node-1 explain --from shop/client --to shop/web
  kubectl portcullis --node node-1 bundle -o node-1.tar.gz

The command gets the settings of the daemon. The exit status is that of the command; 2 also means that the pod could not be
reached. Without --node, status exits with 0 if all nodes are healthy, 1 if a node is not, 2 if the state of a node is unknown.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_options_come_before_the_command() {
        let line = "kubectl-portcullis --context=a --node n --as x --as-group g --as-group h services -n shop --node m -o json -- -x";
        let arguments = Arguments::parse(line.split(' ').map(OsString::from)).expect("valid");
        assert_eq!(arguments.node.as_deref(), Some("n"));
        assert_eq!(arguments.kubectl_flags, ["--context=a", "--as=x", "--as-group=g", "--as-group=h"]);
        assert_eq!(arguments.command, "services");
        assert_eq!(arguments.command_arguments, ["-n", "shop", "--node", "m", "-o", "json", "--", "-x"]);
        assert!(Arguments::parse(["kubectl-portcullis".into()]).is_err(), "a command is required");
    }
}
