use super::dump::{self, DumpRequest};
use super::filter::{self, Filter, KernelFilter};
use super::flow::{Flow, TupleParts};
use super::{Conntrack, IPCTNL_MSG_CT_DELETE, attributes};
use crate::Family;
use crate::error::{Error, Result};
use crate::message::Batch;
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

/// Flows deleted with one send. The answers to flows that are gone already, about 1 KiB of kernel memory
/// each, must fit the receive buffer, also where privilege for a large one is missing (208 KiB).
const DELETES_PER_SEND: u32 = 128;
const DELETE_ONE: &str = "delete a tracked connection";

/// What a dump with deletes did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteCounts {
    /// Flows of the families and protocols asked for.
    pub examined: usize,
    /// Flows deleted. One that expired or was deleted by others first doesn't count.
    pub deleted: usize,
}

/// How [`Conntrack::delete_matching`] did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteMethod {
    /// By one filtered delete, and the kernel doesn't tell how many flows that was.
    ByKernel,
    /// By a dump and single deletes.
    OneByOne(DeleteCounts),
}

impl Conntrack {
    /// Deletes this very flow: its original tuple, zone and (if known) id. Returns `false` if it is gone.
    ///
    /// # Errors
    /// [`Error::Rejected`] for anything but "no such flow"; `EBUSY` on old kernels while the flow is offloaded.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool> {
        let mut batch = Batch::new();
        push_delete(&mut batch, flow)?;
        Ok(run(&mut self.deleting, &mut batch)? == 1)
    }

    /// Lists the flows of these families and protocols (none: all), and deletes exactly those for which
    /// `stale` says so, while the list streams by. Memory does not grow with either.
    ///
    /// # Errors
    /// The first of the kernel's errors. What was found stale before it is deleted, and the call can be
    /// repeated.
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

    /// Deletes all flows that `filter` matches: with one request where the kernel can be trusted to do that
    /// (see the module), and flow by flow otherwise.
    ///
    /// # Errors
    /// [`Error::Rejected`], as a rule for want of CAP_NET_ADMIN.
    pub fn delete_matching(&mut self, filter: &Filter) -> Result<DeleteMethod> {
        if let Some(kernel_filter) = filter.exactly_for_kernel()
            && self.filtered_delete_known()?
        {
            match self.delete_filtered(filter.family, &kernel_filter) {
                // A kernel that knows filters, and not this one. It has deleted nothing.
                Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                    tracing::debug!(%error, "filtered conntrack delete refused, deleting flow by flow");
                }
                outcome => return outcome.map(|()| DeleteMethod::ByKernel),
            }
        }
        let request = DumpRequest::from_filter(filter);
        self.delete_listed(&request, &mut |flow| Some(filter.matches(flow))).map(DeleteMethod::OneByOne)
    }

    /// Makes [`Conntrack::delete_matching`] go flow by flow from now on, whatever the kernel knows.
    pub fn delete_one_by_one(&mut self) {
        self.filtered_delete = Some(false);
    }

    /// Whether the kernel knows filtered deletes. Asks once; the request deletes nothing on any kernel.
    ///
    /// # Errors
    /// Any answer that is neither yes nor no, such as `EPERM` without CAP_NET_ADMIN.
    pub fn filtered_delete_known(&mut self) -> Result<bool> {
        const ACTION: &str = "ask whether the kernel deletes tracked connections by filter";
        if let Some(known) = self.filtered_delete {
            return Ok(known);
        }
        let mut request = delete_request(ACTION, Family::V4, filter::write_impossible)?;
        let known = match self.socket.acknowledge(ACTION, &mut request) {
            Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => true,
            Err(error) if error.errno() == Some(libc::ENOENT) => false,
            Err(error) => return Err(error),
            // No kernel is known to say so. Don't trust one that does.
            Ok(()) => false,
        };
        self.filtered_delete = Some(known);
        Ok(known)
    }

    fn delete_filtered(&mut self, family: Family, filter: &KernelFilter) -> Result<()> {
        const ACTION: &str = "delete tracked connections by filter";
        let mut request = delete_request(ACTION, family, |message| filter.write(message))?;
        self.socket.acknowledge(ACTION, &mut request)
    }

    /// Deletes the listed flows for which `stale` says so; `None` means that nobody asked about the flow.
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
        // What was found before an error is stale all the same.
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

/// Sends the deletes and empties the batch; returns how many flows were there to delete.
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
        // Answers were lost, but the kernel had seen every request before it lost them. Only flows that were
        // gone answer at all, so the count is too high by some of those, and nothing else is wrong.
        Err(Error::Overrun { .. }) | Ok(()) => first_error.map_or(Ok(deleted), Err),
        Err(error) => Err(error),
    }
}
