//! `portcullis cleanup`: removes the rules of all proxy modes, Portcullis' and kube-proxy's, the policy tables, and the pod network.

use std::io::{self, Write};

use portcullis_modes::ProxyMode;
use portcullis_modes::cleanup::{self, CleanupResult, KeptObject, RemovedObject};
use portcullis_policy::table::{EnforceError, Enforcer, TABLE};
use serde::Serialize;

use crate::config::{Cleanup, Config};
use crate::document::Document;
use crate::node_network;
use crate::policy_lock::{PolicyLock, PolicyLockError};

/// The objects that a cleanup removed, kept and left, or would with `--dry-run`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct CleanupReport {
    dry_run: bool,
    /// Nothing is left that should be removed.
    complete: bool,
    removed: Vec<Removed>,
    /// Objects that are kept on purpose.
    kept: Vec<NotRemoved>,
    /// Objects that could not be removed.
    left: Vec<NotRemoved>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    object: String,
    /// `iptables`, `virtualServers`, `ipset`, `link`, `nftTable`, `sysctl`, `route` or `file`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The proxy modes whose object it is; empty for the policy tables and the pod network.
    modes: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotRemoved {
    object: String,
    reason: String,
}

/// Removes all rules, and prints which were removed and which could not be. Returns true if nothing is left. The policy table
/// of a running process is kept unless `force` is set. With `dry_run` nothing is changed, and the same is printed about what
/// would be done.
///
/// # Errors
/// The output cannot be written.
pub fn run(config: &Config, options: Cleanup, out: &mut dyn Write) -> io::Result<bool> {
    let result = if options.dry_run { cleanup::find_all_modes() } else { cleanup::remove_all_modes() };
    let mut report = CleanupReport::new(options.dry_run, result);
    report.remove_policy_tables(options);
    report.remove_pod_network(config, options.dry_run);
    report.complete = report.left.is_empty();
    match options.output.document_format() {
        Some(format) => Document::new("Cleanup", &report).print(format, out)?,
        None => report.print(out)?,
    }
    Ok(report.complete)
}

impl CleanupReport {
    fn new(dry_run: bool, result: CleanupResult) -> Self {
        CleanupReport {
            dry_run,
            complete: false,
            removed: result.removed.iter().map(Removed::new).collect(),
            kept: result.kept.into_iter().map(NotRemoved::from).collect(),
            left: result.not_removed.into_iter().map(NotRemoved::from).collect(),
        }
    }

    fn remove_policy_tables(&mut self, options: Cleanup) {
        let mut left = |object: String, reason: String| self.left.push(NotRemoved { object, reason });
        match PolicyLock::try_acquire() {
            Err(error @ PolicyLockError::Held(_)) if !options.force => {
                left(format!("table inet {TABLE}"), error.to_string());
            }
            // The lock is held until the table is removed.
            _lock => match if options.dry_run { Enforcer::find() } else { Enforcer::remove() } {
                Ok(families) => self.removed.extend(families.into_iter().map(|family| Removed {
                    object: format!("table {} {TABLE}", family.as_str()),
                    kind: "nftTable",
                    modes: Vec::new(),
                })),
                Err(EnforceError::NoTables) => {}
                Err(error) => left(format!("table inet {TABLE}, table bridge {TABLE}"), error.to_string()),
            },
        }
    }

    fn remove_pod_network(&mut self, config: &Config, dry_run: bool) {
        let cleanup = node_network::cleanup::remove(&config.cni_installation, dry_run);
        self.removed.extend(cleanup.removed.into_iter().map(|removed| Removed {
            object: removed.object,
            kind: removed.kind,
            modes: Vec::new(),
        }));
        self.left.extend(cleanup.left.into_iter().map(|(object, reason)| NotRemoved { object, reason }));
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let (removed, kept, left) = match self.dry_run {
            true => ("would remove", "would keep", "could not remove"),
            false => ("removed", "kept", "left"),
        };
        for object in &self.removed {
            writeln!(out, "{removed} {}", object.object)?;
        }
        for NotRemoved { object, reason } in &self.kept {
            writeln!(out, "{kept} {object}: {reason}")?;
        }
        for NotRemoved { object, reason } in &self.left {
            writeln!(out, "{left} {object}: {reason}")?;
        }
        if self.removed.is_empty() && self.left.is_empty() && self.kept.is_empty() {
            writeln!(out, "nothing to remove")?;
        }
        Ok(())
    }
}

impl Removed {
    fn new(object: &RemovedObject) -> Self {
        let (kind, modes) = match object {
            // Rules of both modes are in the same chains.
            RemovedObject::Iptables { .. } => ("iptables", &[ProxyMode::Iptables, ProxyMode::Ipvs][..]),
            RemovedObject::VirtualServers(_) => ("virtualServers", &[ProxyMode::Ipvs][..]),
            RemovedObject::IpSet(_) => ("ipset", &[ProxyMode::Ipvs][..]),
            RemovedObject::Link(_) => ("link", &[ProxyMode::Ipvs][..]),
            RemovedObject::NftTable(_) => ("nftTable", &[ProxyMode::Nftables][..]),
            RemovedObject::RouteLocalnet => ("sysctl", &[ProxyMode::Iptables, ProxyMode::Nftables][..]),
        };
        Removed { object: object.to_string(), kind, modes: modes.iter().map(|mode| mode.name()).collect() }
    }
}

impl From<KeptObject> for NotRemoved {
    fn from(KeptObject { object, reason }: KeptObject) -> Self {
        NotRemoved { object, reason }
    }
}
