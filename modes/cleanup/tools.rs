//! The iptables tools for a cleanup.

use portcullis_netlink::{Family, nf_tables, xtables};

use super::result::CleanupResult;
use crate::iptables::{Flavour, Tools};

/// Returns the tools of a flavour if the kernel supports it. Records tables that exist and cannot be read for lack of
/// tools.
pub(super) fn tools_for(flavour: Flavour, result: &mut CleanupResult) -> Option<Tools> {
    if flavour == Flavour::Nft && matches!(nf_tables::open(), Ok(None)) {
        return None;
    }
    if flavour == Flavour::Legacy
        && let Some(error) = Family::ALL.into_iter().find_map(|family| xtables::tables(family).err())
    {
        // Without this check, the tool fails once per table.
        let reason =
            format_args!("{error}; this requires root: run `portcullis cleanup` as root to check for rules");
        result.add_failure("legacy tables of iptables", reason);
        return None;
    }
    match Tools::of_flavour(flavour) {
        Ok(tools) => Some(tools),
        Err(error) => {
            tracing::debug!(?flavour, %error, "no tools of this flavour");
            if flavour == Flavour::Legacy && legacy_tables_exist() {
                result.add_failure("legacy tables of iptables", error);
            }
            None
        }
    }
}

fn legacy_tables_exist() -> bool {
    Family::ALL.into_iter().any(|family| xtables::tables(family).is_ok_and(|tables| !tables.is_empty()))
}
