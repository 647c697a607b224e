//! Lists flows.

use super::filter::{Filter, KernelFilter};
use super::flow::Flow;
use super::{IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_GET_STATS};
use crate::Family;
use crate::attribute::Malformed;
use crate::error::{During, Result};
use crate::message::Batch;
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

/// The number of flows that the kernel lists in the time in which it walks over an empty table: 2 µs per flow, against 20 ms
/// for the usual 262,144 buckets.
const FLOWS_PER_WALK: u32 = 10_000;

/// The request for a dump, with a filter if possible. The caller checks the flows, as the kernel may list more.
#[derive(Clone, Copy, Debug)]
pub(super) struct DumpRequest {
    /// `None` for every family.
    family: Option<Family>,
    filter: Option<KernelFilter>,
}

impl DumpRequest {
    /// Returns the narrowest request that lists all flows which `filter` matches.
    pub(super) fn from_filter(filter: &Filter) -> Self {
        DumpRequest { family: Some(filter.family), filter: filter.for_kernel() }
    }

    /// Calls `each` for the listed flows as they arrive.
    pub(super) fn send(&self, socket: &mut Socket, each: &mut dyn FnMut(&Flow) -> Result<()>) -> Result<()> {
        match self.dump(socket, self.filter.as_ref(), each) {
            // A kernel that rejects the filter has not listed anything, and gets the request without it.
            Err(error)
                if self.filter.is_some()
                    && matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
            {
                tracing::debug!(%error, "kernel rejected a filtered conntrack dump; listing all flows of the family");
                self.dump(socket, None, each)
            }
            outcome => outcome,
        }
    }

    fn dump(
        &self,
        socket: &mut Socket,
        filter: Option<&KernelFilter>,
        each: &mut dyn FnMut(&Flow) -> Result<()>,
    ) -> Result<()> {
        const ACTION: &str = "list tracked connections";
        let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_GET);
        let mut request = Batch::with_message(ACTION, kind, 0, |message| {
            message.netfilter_header(self.family);
            if let Some(filter) = filter {
                filter.write(message);
            }
        })?;
        socket.dump(ACTION, &mut request, |message| match Flow::parse(&message).during(ACTION)? {
            Some(flow) => each(&flow),
            None => Ok(()),
        })
    }
}

/// Returns true if a flow is of these families and protocols (none: all).
pub(super) fn wanted(flow: &Flow, families: &[Family], protocols: &[u8]) -> bool {
    families.contains(&flow.family) && (protocols.is_empty() || protocols.contains(&flow.protocol))
}

/// Returns requests that together list all flows of these families and protocols once. The kernel can filter a dump by one
/// protocol of one family, and walks over the whole table for each. In a small table, one walk that lists too much is cheaper;
/// `entries` returns the number of flows.
pub(super) fn covering(
    families: &[Family],
    protocols: &[u8],
    entries: impl FnOnce() -> Result<u32>,
) -> Vec<DumpRequest> {
    let narrow: Vec<DumpRequest> = families
        .iter()
        .flat_map(|&family| match protocols {
            [] => vec![DumpRequest::from_filter(&Filter::new(family))],
            some => {
                some.iter().map(|&one| DumpRequest::from_filter(&Filter::new(family).protocol(one))).collect()
            }
        })
        .collect();
    let saved_walks = narrow.len().saturating_sub(1) as u32;
    // Without a count, the filtered requests only take longer.
    if saved_walks > 0 && entries().is_ok_and(|entries| entries <= saved_walks * FLOWS_PER_WALK) {
        return vec![DumpRequest { family: None, filter: None }];
    }
    narrow
}

/// Returns the number of flows of the namespace, in constant time.
pub(super) fn entries(socket: &mut Socket) -> Result<u32> {
    const ACTION: &str = "count tracked connections";
    let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_GET_STATS);
    let mut request = Batch::with_message(ACTION, kind, 0, |message| {
        message.netfilter_header(None);
    })?;
    socket.query(ACTION, &mut request, |message| {
        let (_, attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
        for attribute in attributes {
            let attribute = attribute.during(ACTION)?;
            if attribute.kind == CTA_STATS_GLOBAL_ENTRIES {
                return attribute.u32_be().during(ACTION);
            }
        }
        Err(Malformed::Missing("CTA_STATS_GLOBAL_ENTRIES")).during(ACTION)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_are_walked_once_and_large_ones_by_filter() {
        const UDP_AND_SCTP: &[u8] = &[17, 132];
        // (families, protocols, entries, requests)
        let rows: [(&[Family], &[u8], u32, usize); 8] = [
            (&Family::ALL, UDP_AND_SCTP, 30_000, 1),
            (&Family::ALL, UDP_AND_SCTP, 30_001, 4),
            (&Family::ALL, &[], 10_000, 1),
            (&Family::ALL, &[], 10_001, 2),
            (&[Family::V4], UDP_AND_SCTP, 10_001, 2),
            (&[Family::V4], &[17], 0, 1),
            (&[Family::V4], &[], 0, 1),
            (&[], UDP_AND_SCTP, 0, 0),
        ];
        for (families, protocols, entries, requests) in rows {
            let found = covering(families, protocols, || Ok(entries));
            assert_eq!(found.len(), requests, "{families:?} {protocols:?} {entries}");
            let everything = found.iter().any(|request| request.family.is_none());
            assert_eq!(everything, requests == 1 && families.len() * protocols.len().max(1) > 1);
        }
        let uncounted =
            covering(&Family::ALL, UDP_AND_SCTP, || Err(crate::Error::NoResponse { action: "count" }));
        assert_eq!(uncounted.len(), 4);
    }
}
