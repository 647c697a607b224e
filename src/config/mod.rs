//! Command line and configuration files: those of kube-proxy v1.36, and Portcullis' own flags and TOML.
//!
//! ```text
//! command line ──────────────┐
//! KubeProxyConfiguration ────┼─ Settings (raw) ─ validation ─┬─ Config (validated)
//! TOML ──────────────────────┘                               └─ ConfigErrors, all at once
//! ```
//!
//! [`Invocation::parse`] does all of it. Every setting is a row in `setting_table`, with its name in each of
//! the three inputs. A new row adds the setting to the flags, both file formats, the help, and the output of
//! `--write-config-to`. A test compares `config.example.toml` with the table.

mod address;
mod command;
mod config_map;
mod configuration_file;
mod detect_local_mode;
mod document;
mod error;
mod feature_gate_table;
mod feature_gates;
mod field_ref;
mod flags;
mod go_duration;
mod go_number;
mod invocation;
mod kube_proxy_configuration;
mod name_suggestion;
mod node_port_addresses;
mod origins;
mod setting;
mod setting_table;
mod settings;
mod toml_file;
mod validated;
mod validation;
mod yaml_document;

#[cfg(test)]
mod tests;

pub use command::{
    AddressFamily, Bundle, Cleanup, Command, CompletionShell, Completions, Daemon, Diff, Explain, Man,
    Matrix, Migrate, Observe, ObserveFormat, OutputFormat, Policy, ProtocolArgument, Render, Services,
    ServicesFormat, Status, VerdictArgument,
};
pub(crate) use command::{command_line, completed_command_line, has_settings};
pub use detect_local_mode::DetectLocalMode;
pub use error::{ConfigError, ConfigErrors, Origin, Warning};
pub use invocation::Invocation;
pub(crate) use invocation::{exit, read_file};
pub(crate) use name_suggestion::{closest, nearest};
pub use portcullis_modes::{DetectLocal, InterfaceName, NodePortAddresses, ProxyMode};
pub use validated::{
    ApiServer, Config, Conntrack, DropLog, Established, Iptables, Ipvs, KubectlCredentials, LogFormat,
    Logging, Masquerade, MasqueradeBit, NetworkPolicy, Nftables, PodNetwork, Source, SyncPeriods,
    UnknownPods,
};
pub(crate) use yaml_document::{limit_message, yaml_options};
