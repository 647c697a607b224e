//! Arguments of `portcullis migrate`.

use std::time::Duration;

use clap::Args;

use super::OutputFormat;
use crate::config::ProxyMode;
use crate::config::go_duration::GoDuration;

/// Switch this node to another proxy mode. The source of the cluster state (manifests or an API server) and the settings
/// are in the [configuration](crate::config::Config), whose mode is the new one.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Migrate {
    /// New proxy mode: iptables, ipvs or nftables
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub to: ProxyMode,
    /// Write the rules of the new mode, then remove those of the old one; without this flag, only print the plan
    #[arg(long)]
    pub apply: bool,
    /// Maximum time to wait for connections through IPVS to end before removing the virtual servers, such as 90s or 5m; 0
    /// terminates them immediately
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub drain: Duration,
    /// Continue even if a proxy appears to be running that would write the old mode's rules again
    #[arg(long)]
    pub force: bool,
    /// Output format
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

fn mode(name: &str) -> Result<ProxyMode, String> {
    let known = || ProxyMode::ALL.map(ProxyMode::name).join(", ");
    ProxyMode::from_name(name).ok_or_else(|| format!("expected one of {}", known()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = GoDuration::parse(text).and_then(GoDuration::to_std);
    parsed.ok_or_else(|| "expected a duration such as 90s, 5m or 0".to_owned())
}
