//! Arguments of `portcullis explain`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{AddressFamily, OutputFormat};

/// Explain whether a connection is delivered, where, and by which rules. The source of the cluster state (manifests or
/// an API server) and the settings are in the [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Explain {
    /// Client: a pod (NAME, NAMESPACE/NAME), KIND/NAME or KIND/NAMESPACE/NAME (pod, deploy, sts, ds, rs, job, node), or an IP
    /// address
    #[arg(long, value_name = "CLIENT")]
    pub from: String,
    /// Destination: a pod or Service (NAME, NAMESPACE/NAME), KIND/NAME or KIND/NAMESPACE/NAME (as for the client, and svc), a
    /// DNS name such as web.shop.svc, an IP address, or "node" for the client's node; optionally with :PORT (a number or a name)
    /// and /PROTOCOL. Or a URL
    #[arg(long, value_name = "DESTINATION")]
    pub to: String,
    /// Namespace of names without one [default: that of the kubeconfig's context or the service account, else "default"]
    #[arg(long, short, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Destination port: a number or a name, such as 80, 53/udp, http
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Protocol [default: the destination's protocol on that port, else tcp]
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<ProtocolArgument>,
    /// Explain only this IP family
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<AddressFamily>,
    /// Node that receives the connection of a client outside of the cluster [default: this node]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Show the rules of each node by which it routes the connection and enforces policies on it, as rendered from the objects
    #[arg(long)]
    pub rules: bool,
    /// Send one packet from the client's network namespace, trace it through the rules of this node, and compare with the
    /// prediction: exit status 0 if it agrees, 1 if not, 2 if the probe does not show it. Needs root
    #[arg(long)]
    pub probe: bool,
    /// The client's network namespace, such as /run/netns/NAME [default: the one with the client's address]
    #[arg(long, value_name = "PATH", requires = "probe")]
    pub netns: Option<PathBuf>,
    /// Time limit of a probe in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = parse_seconds, requires = "probe")]
    pub probe_timeout: Duration,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

/// Parses a time limit from 0.1 to 60 seconds.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected a number from 0.1 to 60".to_owned())
}

impl Explain {
    /// Returns the arguments for a connection of both families, with text as output and without a probe.
    pub(crate) fn new(from: &str, to: &str, port: Option<&str>) -> Self {
        Explain {
            from: from.to_owned(),
            to: to.to_owned(),
            port: port.map(str::to_owned),
            ..Explain::default()
        }
    }
}

/// A protocol on the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolArgument {
    /// TCP
    #[value(alias = "TCP")]
    Tcp,
    /// UDP
    #[value(alias = "UDP")]
    Udp,
    /// SCTP
    #[value(alias = "SCTP")]
    Sctp,
}
