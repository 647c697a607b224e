//! `portcullis render`: prints the rules for a cluster state without changing the kernel.

use std::fmt::Display;
use std::io::{self, Write};

use portcullis_cluster::Family;
use serde::Serialize;

use super::rules_printer::RulesPart;
pub(crate) use super::rules_printer::RulesPrinter;
use crate::cluster_view::{self, LoadError};
use crate::config::{AddressFamily, Config, Render};
use crate::document::Document;
use crate::proxy_modes;

/// The content of the document.
#[derive(Serialize)]
struct Rules {
    mode: &'static str,
    /// All objects of the cluster could be read.
    complete: bool,
    parts: Vec<RulesPart>,
}

/// An error that prevents rendering.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The cluster state cannot be read.
    #[error(transparent)]
    State(#[from] LoadError),
    /// Policies are not enforced, so there is no policy table.
    #[error("policies are not enforced, so there is no policy table; set --network-policy")]
    NoPolicies,
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Prints the rules in the format of `iptables-save`. The rules of one family are printed without a heading, so that they can
/// be restored; those of both families have a comment line before each. In IPVS mode, virtual servers, sets and addresses
/// come first, in the formats of `ipvsadm`, `ipset` and `ip`, each after a comment line. If policies are enforced, their table
/// comes last, in the format of `nft`.
///
/// # Errors
/// The cluster state cannot be read, or the output cannot be written.
pub fn run(config: &Config, render: &Render, out: &mut dyn Write) -> Result<(), RenderError> {
    if config.network_policy.is_none() && render.only_policies {
        return Err(RenderError::NoPolicies);
    }
    let state = cluster_view::load_node(config, render.host.as_deref())?;
    let format = render.output.document_format();
    let mut printer = match format {
        None => RulesPrinter::Text(&mut *out),
        Some(_) => RulesPrinter::Document(Vec::new()),
    };
    if !render.only_policies {
        let (families, is_single) = (families(render.family), render.family.is_some());
        proxy_modes::driver(config.mode).render(config, &state, &families, is_single, &mut printer)?;
    }
    // The rules of one family must be restorable, so nothing follows them.
    match &state.policies {
        Some(policies) if render.only_policies || render.family.is_none() => {
            let heading = (!render.only_policies).then_some(&"nft" as &dyn Display);
            printer.part("nft", None, heading, policies.table().desired())?;
            printer.part("nft", None, None, policies.bridge().desired())?;
        }
        _ => {}
    }
    if let (RulesPrinter::Document(parts), Some(format)) = (printer, format) {
        let complete = state.unreadable.check().is_ok();
        Document::new("Rules", Rules { mode: config.mode.name(), complete, parts }).print(format, out)?;
    }
    Ok(state.unreadable.check()?)
}

/// Returns the requested family, or both.
pub fn families(requested: Option<AddressFamily>) -> Vec<Family> {
    match requested {
        Some(AddressFamily::Ipv4) => vec![Family::V4],
        Some(AddressFamily::Ipv6) => vec![Family::V6],
        None => Family::BOTH.to_vec(),
    }
}
