//! Whether a Service may be the reason for a rejection: only if the kernel accepts such changes of other virtual servers.
//!
//! The kernel may reject all changes, whatever the Service: a module is missing, or a security module or another program forbids
//! them. Then no Service is isolated, and the sync fails.

use std::collections::BTreeSet;

use super::executor::{Executor, Results};
use super::kernel::{IpvsKernel, ServerChange};
use super::programmed::Programmed;
use super::rejections::{AcceptedClasses, ChangeClass, RejectedChanges};
use crate::error::SyncError;

/// The number of virtual servers that are written again as they are. Another process may have deleted one of them.
const PROBES: usize = 3;

/// Checks that rejections may be the fault of Services: the kernel accepts changes of another virtual server, at least those that leave
/// it as it is.
///
/// # Errors
/// The first rejection, if the kernel rejects all changes of its class; or the kernel could not be reached.
pub(super) fn check(
    rejected: &RejectedChanges,
    accepted: AcceptedClasses,
    programmed: &Programmed,
    executor: &mut Executor,
    kernel: &mut dyn IpvsKernel,
) -> Result<(), SyncError> {
    for class in [ChangeClass::Server, ChangeClass::RealServer] {
        let of_class =
            || rejected.iter().filter(|(_, rejected)| rejected.class == class && !rejected.is_node_error);
        let owners: BTreeSet<_> = of_class().filter_map(|(server, _)| programmed.owner(server)).collect();
        if owners.is_empty() || accepted.has(class) {
            continue;
        }
        let probes = probes(class, rejected, programmed);
        // With one Service there is nothing else that the kernel could accept.
        let is_of_one_service = probes.is_empty() && owners.len() == 1;
        if !is_of_one_service && !accepts_one(&probes, executor, kernel)? {
            let error = of_class().next().map(|(_, rejected)| rejected.error.clone());
            let error = error.expect("a Service owns a rejected virtual server");
            return Err(error
                .with_hint("the kernel rejects changes of all virtual servers, so no Service is isolated"));
        }
    }
    Ok(())
}

/// Returns changes that leave virtual servers as they are, other than the `rejected` ones.
fn probes(class: ChangeClass, rejected: &RejectedChanges, programmed: &Programmed) -> Vec<ServerChange> {
    let servers =
        programmed.services().iter().flat_map(|(name, ports)| programmed.owned_servers(name, ports));
    let changes =
        servers.filter(|(server, _)| !rejected.contains(server)).filter_map(|(server, spec)| match class {
            ChangeClass::Server => Some(ServerChange::SetServer(server, spec.config)),
            ChangeClass::RealServer => {
                spec.real_servers.into_iter().next().map(|real| ServerChange::SetRealServer(server, real))
            }
        });
    changes.take(PROBES).collect()
}

/// Returns true if the kernel accepts one of the changes.
fn accepts_one(
    changes: &[ServerChange],
    executor: &mut Executor,
    kernel: &mut dyn IpvsKernel,
) -> Result<bool, SyncError> {
    let mut results = Results::default();
    executor.change_servers(kernel, changes, &mut results)?;
    Ok(changes.iter().any(|change| !results.rejected_changes.contains(change.server())))
}
