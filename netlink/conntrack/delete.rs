//! Deletes flows: one, by predicate, or by filter.

use super::dump::{self, DumpRequest};
use super::filter::{self, Filter, KernelFilter};
use super::flow::{Flow, TupleParts};
use super::{Conntrack, IPCTNL_MSG_CT_DELETE, attributes};
use crate::Family;
use crate::error::{Error, Result};
use crate::message::Batch;
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

/// The number of deletes in one send. The errors for missing flows, about 1 KiB of kernel memory each, must fit the receive
/// buffer, also without the privilege for a large one (208 KiB).
const DELETES_PER_SEND: u32 = 128;
const DELETE_ONE: &str = "delete a tracked connection";

/// The result of a dump with deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteCounts {
    /// The number of flows of the requested families and protocols.
    pub examined: usize,
    /// The number of deleted flows, without those that expired or were deleted by another process first.
    pub deleted: usize,
}

/// The method that [`Conntrack::delete_matching`] used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteMethod {
    /// One filtered delete; the kernel does not report the number of flows.
    ByKernel,
    /// A dump and single deletes.
    OneByOne(DeleteCounts),
}

impl Conntrack {
    /// Deletes a flow, identified by its original tuple, zone and (if known) id. Returns false if it is missing.
    ///
    /// # Errors
    /// [`Error::Rejected`] for anything but "no such flow"; `EBUSY` on old kernels while the flow is offloaded.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool> {
        let mut batch = Batch::new();
        push_delete(&mut batch, flow)?;
        Ok(run(&mut self.deleting, &mut batch)? == 1)
    }

    /// Lists the flows of these families and protocols (none: all), and deletes exactly those for which `stale` returns true,
    /// while the list is received. Memory does not grow with the number of flows.
    ///
    /// # Errors
    /// The first error of the kernel. Stale flows listed before it are deleted, and the call can be repeated.
    pub fn delete_where(
        &mut self,
        families: &[Family],
        protocols: &[u8],
        mut stale: impl FnMut(&Flow) -> bool,
    ) -> Result<DeleteCounts> {
        let mut total = DeleteCounts::default();
        for request in self.requests(families, protocols) {
            let part = self.delete_listed(&request, &mut |flow| {
                dump::wanted(flow, families, protocols).then(|| stale(flow))
            })?;
            total.examined += part.examined;
            total.deleted += part.deleted;
        }
        Ok(total)
    }

    /// Deletes all flows that `filter` matches: with one request if the kernel does that correctly (see the module), and flow
    /// by flow otherwise.
    ///
    /// # Errors
    /// [`Error::Rejected`], usually without CAP_NET_ADMIN.
    pub fn delete_matching(&mut self, filter: &Filter) -> Result<DeleteMethod> {
        if let Some(kernel_filter) = filter.exactly_for_kernel()
            && self.supports_filtered_delete()?
        {
            match self.delete_filtered(filter.family, &kernel_filter) {
                // The kernel supports filters, but not this one. It has deleted nothing.
                Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                    tracing::debug!(%error, "kernel rejected a filtered conntrack delete; deleting flow by flow");
                }
                outcome => return outcome.map(|()| DeleteMethod::ByKernel),
            }
        }
        let request = DumpRequest::from_filter(filter);
        self.delete_listed(&request, &mut |flow| Some(filter.matches(flow))).map(DeleteMethod::OneByOne)
    }

    /// Makes [`Conntrack::delete_matching`] delete flow by flow from now on, whether the kernel supports filters or not.
    pub fn delete_one_by_one(&mut self) {
        self.filtered_delete = Some(false);
    }

    /// Returns true if the kernel supports filtered deletes. Sends one request, which deletes nothing on any kernel.
    ///
    /// # Errors
    /// An error that does not answer this, such as `EPERM` without CAP_NET_ADMIN.
    pub fn supports_filtered_delete(&mut self) -> Result<bool> {
        const ACTION: &str = "check whether the kernel deletes tracked connections by filter";
        if let Some(is_supported) = self.filtered_delete {
            return Ok(is_supported);
        }
        let mut request = delete_request(ACTION, Family::V4, filter::write_impossible)?;
        let is_supported = match self.socket.acknowledge(ACTION, &mut request) {
            Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => true,
            Err(error) if error.errno() == Some(libc::ENOENT) => false,
            Err(error) => return Err(error),
            // No known kernel accepts the request. Do not use filters on one that does.
            Ok(()) => false,
        };
        self.filtered_delete = Some(is_supported);
        Ok(is_supported)
    }

    fn delete_filtered(&mut self, family: Family, filter: &KernelFilter) -> Result<()> {
        const ACTION: &str = "delete tracked connections by filter";
        let mut request = delete_request(ACTION, family, |message| filter.write(message))?;
        self.socket.acknowledge(ACTION, &mut request)
    }

    /// Deletes the listed flows for which `stale` returns true; `None` for a flow that was not requested.
    fn delete_listed(
        &mut self,
        request: &DumpRequest,
        stale: &mut dyn FnMut(&Flow) -> Option<bool>,
    ) -> Result<DeleteCounts> {
        let Conntrack { socket, deleting, .. } = self;
        let mut done = DeleteCounts::default();
        let mut batch = Batch::new();
        let listed = request.send(socket, &mut |flow| {
            let Some(stale) = stale(flow) else { return Ok(()) };
            done.examined += 1;
            if stale {
                push_delete(&mut batch, flow)?;
                if batch.len() == DELETES_PER_SEND {
                    done.deleted += run(deleting, &mut batch)?;
                }
            }
            Ok(())
        });
        // Flows found before an error are stale, too.
        done.deleted += run(deleting, &mut batch)?;
        listed.map(|()| done)
    }
}

fn delete_request(
    action: &'static str,
    family: Family,
    condition: impl FnOnce(&mut crate::attribute::Writer<'_>),
) -> Result<Batch> {
    let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_DELETE);
    Batch::with_message(action, kind, 0, |message| {
        message.netfilter_header(Some(family));
        condition(message);
    })
}

fn push_delete(batch: &mut Batch, flow: &Flow) -> Result<()> {
    let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_DELETE);
    batch.push(DELETE_ONE, kind, 0, |message| {
        message.netfilter_header(Some(flow.family));
        TupleParts::from(flow.original).write(message, attributes::TUPLE_ORIG, flow.protocol);
        if flow.zone != 0 {
            message.u16_be(attributes::ZONE, flow.zone);
        }
        if let Some(id) = flow.id {
            message.u32_be(attributes::ID, id);
        }
    })
}

/// Sends the deletes and clears the batch. Returns the number of deleted flows.
fn run(socket: &mut Socket, batch: &mut Batch) -> Result<usize> {
    let mut deleted = batch.len() as usize;
    let mut first_error = None;
    let outcome = socket.transact(DELETE_ONE, batch, |_, error| {
        deleted -= 1;
        if error.errno() != Some(libc::ENOENT) && first_error.is_none() {
            first_error = Some(error);
        }
        Ok(())
    });
    batch.clear();
    match outcome {
        // Errors were lost after the kernel had processed all requests. Only missing flows return errors, so the count is too
        // high by some of those.
        Err(Error::Overrun { .. }) | Ok(()) => first_error.map_or(Ok(deleted), Err),
        Err(error) => Err(error),
    }
}
