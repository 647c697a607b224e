//! `portcullis migrate`.

use std::time::Duration;

use clap::Args;

use super::OutputFormat;
use crate::config::ProxyMode;
use crate::config::go_duration::GoDuration;

/// Move this node to another mode. State (manifests or an API server) and settings are in the
/// [configuration](crate::config::Config), whose mode is the new one.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Migrate {
    /// The new mode: iptables, ipvs or nftables
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub to: ProxyMode,
    /// Write the new mode's rules, and then remove what is left of the old one
    #[arg(long)]
    pub apply: bool,
    /// How long connections through IPVS may last before what serves them goes, as in 90s or 5m; with 0 they end at once
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub drain: Duration,
    /// Go on though a proxy seems to run that would write the old mode's rules again
    #[arg(long)]
    pub force: bool,
    /// How to print what is found
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
}

fn mode(name: &str) -> Result<ProxyMode, String> {
    let known = || ProxyMode::ALL.map(ProxyMode::name).join(", ");
    ProxyMode::from_name(name).ok_or_else(|| format!("expected one of {}", known()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = GoDuration::parse(text).and_then(GoDuration::to_std);
    parsed.ok_or_else(|| "expected a duration, as in 90s, 5m or 0".to_owned())
}
