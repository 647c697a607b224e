//! `portcullis render`: the rules for a state, without touching the kernel.

use std::io::{self, Write};

use portcullis_cluster::Family;
use portcullis_modes::iptables::RuleSet;
use portcullis_modes::{ipvs, nftables};

use crate::cluster_view::{self, LoadError, NodeView};
use crate::config::{AddressFamily, Config, ProxyMode, Render};
use crate::node;

/// Why rules cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The state cannot be had.
    #[error(transparent)]
    State(#[from] LoadError),
    /// There is no table of policies.
    #[error("no policies are enforced, so they have no table; --network-policy enforces them")]
    NoPolicies,
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Prints the rules, as `iptables-save` would. Those of one family stand alone, so that they can be restored;
/// those of both have a line of comment before each. In ipvs mode virtual servers, sets and addresses come first, as
/// `ipvsadm`, `ipset` and `ip` print them, each under a line of comment. Where policies are enforced, their table comes
/// last, as `nft` prints it.
///
/// # Errors
/// The state cannot be had, or the mode cannot be rendered.
pub fn run(config: &Config, render: &Render, out: &mut dyn Write) -> Result<(), RenderError> {
    if config.network_policy.is_none() && render.only_policies {
        return Err(RenderError::NoPolicies);
    }
    let state = cluster_view::load_node(config, render.host.as_deref())?;
    if !render.only_policies {
        services(config, render, &state, out)?;
    }
    // With one family's rules alone, nothing else must come.
    match &state.policies {
        Some(policies) if render.only_policies || render.family.is_none() => {
            let head = if render.only_policies { "" } else { "# nft\n" };
            write!(out, "{head}{}{}", policies.table().desired(), policies.bridge().desired())?;
        }
        _ => {}
    }
    Ok(state.unreadable.check()?)
}

fn services(
    config: &Config,
    render: &Render,
    state: &NodeView,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    if config.mode == ProxyMode::Nftables {
        for family in families(render.family) {
            write!(out, "{}", nftables::render(&state.desired, family, &state.options, &state.host))?;
        }
        return Ok(());
    }
    if config.mode == ProxyMode::Ipvs {
        let (families, ipvs) = (families(render.family), node::ipvs_options(config));
        let rendered =
            ipvs::IpvsObjects::render(&state.desired, &families, &ipvs, &state.options, &state.host);
        write!(out, "# ipvsadm\n{}", rendered.ipvsadm())?;
        write!(out, "# ipset\n{}", rendered.ipset())?;
        write!(out, "# {}\n{}", ipvs::DUMMY_INTERFACE, rendered.address_lines())?;
        for (family, rules) in &rendered.rules {
            write!(out, "# {family}\n{rules}")?;
        }
        return Ok(());
    }
    for family in families(render.family) {
        if render.family.is_none() {
            writeln!(out, "# {family}")?;
        }
        write!(out, "{}", RuleSet::render(&state.desired, family, &state.options, &state.host))?;
    }
    Ok(())
}

/// The families asked for: one, or both.
pub fn families(asked: Option<AddressFamily>) -> Vec<Family> {
    match asked {
        Some(AddressFamily::Ipv4) => vec![Family::V4],
        Some(AddressFamily::Ipv6) => vec![Family::V6],
        None => Family::BOTH.to_vec(),
    }
}
