//! Arguments of `portcullis observe`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

/// Print packets that policies or source ranges drop, or connections, as they happen. The socket of the daemon is in the
/// [configuration](crate::config::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Print new and ended connections in place of drops
    #[arg(long)]
    pub connections: bool,
    /// Print until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// End after this time [default: 30s, or never with --follow or --count]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub limit: Option<Duration>,
    /// End after this number of events
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub count: Option<u64>,
    /// Only these events
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    pub verdict: Vec<VerdictArgument>,
    /// Only events from this source: POD, NAMESPACE/POD, NAMESPACE/PREFIX*, svc/[NAMESPACE/]NAME, labels of a pod
    /// (app=web,tier!=test), an address or a CIDR
    #[arg(long, value_name = "PEER")]
    pub from: Option<String>,
    /// Only events to this destination, before or after DNAT
    #[arg(long, value_name = "PEER")]
    pub to: Option<String>,
    /// Only events with a pod or Service of this namespace at one end; names without a namespace are of this one, else of
    /// "default"
    #[arg(long, short, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only events to this port, before or after DNAT
    #[arg(long, value_name = "NUMBER")]
    pub port: Option<u16>,
    /// Only this protocol: tcp, udp, sctp, icmp, icmpv6 or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Only drops by this policy: NAMESPACE/NAME, or the name of a ClusterNetworkPolicy
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: ObserveFormat,
}

/// Output format of events.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObserveFormat {
    /// Lines of text for people
    Text,
    /// A JSON document in each line, for programs
    Json,
}

/// A kind of event.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictArgument {
    /// Dropped packets
    Dropped,
    /// Packets that would be dropped without --network-policy-audit
    Audit,
    /// New connections
    New,
    /// Ended connections
    Ended,
}

impl VerdictArgument {
    /// Returns the name, as in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            VerdictArgument::Dropped => "dropped",
            VerdictArgument::Audit => "audit",
            VerdictArgument::New => "new",
            VerdictArgument::Ended => "ended",
        }
    }
}

/// Parses a duration with a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration such as 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h30m", 5400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "0s", "-5s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
