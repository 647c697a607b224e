//! Values that shells complete. The parser of the settings accepts more, and reports other values together, so these are not part of
//! the command line that is parsed.

use clap::builder::PossibleValuesParser;
use clap::{Command, ValueHint};

/// The proxy modes.
const MODES: &[&str] = &["iptables", "ipvs", "nftables"];

/// Flags with a few possible values.
pub(super) const VALUES: [(&str, &[&str]); 11] = [
    ("mode", MODES),
    ("proxy-mode", MODES),
    ("to", MODES),
    ("detect-local-mode", &["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]),
    ("ipvs-scheduler", &["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh"]),
    ("logging-format", &["text", "json"]),
    ("network-policy-established", &["keep", "cut"]),
    ("network-policy-unknown-pods", &["deny", "allow"]),
    ("pod-network", &["off", "host-gw", "vxlan", "cross-subnet"]),
    ("pod-network-wiring", &["ptp", "bridge"]),
    ("v", &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]),
];

/// Flags whose value is a path.
const FILES: [(&str, ValueHint); 7] = [
    ("config", ValueHint::FilePath),
    ("kubeconfig", ValueHint::FilePath),
    ("manifests", ValueHint::AnyPath),
    ("pod-network-cni-bin-dir", ValueHint::DirPath),
    ("pod-network-cni-conf-dir", ValueHint::DirPath),
    ("socket", ValueHint::FilePath),
    ("write-config-to", ValueHint::FilePath),
];

/// Adds the values to a command and its subcommands. `migrate --to` and flags of other programs of the same name are not changed.
pub(super) fn add(mut command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "lab") {
        command = command.mut_subcommand(name, add);
    }
    let has =
        |command: &Command, name: &str| command.get_arguments().any(|argument| argument.get_id() == name);
    for (name, values) in VALUES {
        // `explain --to` is a destination.
        if has(&command, name) && (name != "to" || command.get_name() == "migrate") {
            command = command.mut_arg(name, |argument| {
                let values = PossibleValuesParser::new(values.iter().copied());
                argument.value_parser(values)
            });
        }
    }
    for (name, hint) in FILES {
        if has(&command, name) {
            command = command.mut_arg(name, |argument| argument.value_hint(hint));
        }
    }
    command
}
