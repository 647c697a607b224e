//! A socket of the kernel in memory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use portcullis_netlink::attribute::Writer;
use portcullis_netlink::message::{ACK, Batch, DUMP, Message, Messages};
use portcullis_netlink::socket::{Datagram, SocketOptions, Transport};

use super::super::inert_options::InertOptions;
use super::FakeNfTables;
use super::objects::{Attributes, RawObject, RawTable, a, get, read};
use super::ruleset::{ENOENT, Ruleset, m, name_attribute};

const NF_TABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `EAGAIN`: nothing was received within the timeout.
const EAGAIN: i32 = 11;
/// The bytes of the fixed header (`struct nfgenmsg`).
const HEADER: usize = 4;

#[derive(Debug)]
pub(super) struct FakeSocket {
    kernel: FakeNfTables,
    responses: VecDeque<Vec<u8>>,
    options: InertOptions,
}

impl FakeSocket {
    pub(super) fn new(kernel: FakeNfTables) -> io::Result<Self> {
        Ok(FakeSocket { kernel, responses: VecDeque::new(), options: InertOptions::new()? })
    }

    fn respond(&mut self, kind: u16, sequence: u32, fill: impl FnOnce(&mut Writer<'_>)) {
        let message = Batch::with_message("respond", kind, 0, fill).expect("attributes are short");
        let mut bytes = message.bytes().to_vec();
        bytes[6..8].fill(0);
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.responses.push_back(bytes);
    }

    fn respond_status(&mut self, kind: u16, sequence: u32, errno: i32) {
        self.respond(kind, sequence, |out| _ = out.raw(&(-errno).to_ne_bytes()).raw(&[0; 16]));
    }

    /// Applies a batch, or only checks it if it has no end.
    fn transact(&mut self, messages: &[Message<'_>]) {
        let mut changed = self.kernel.ruleset().clone();
        for message in &messages[1..] {
            if message.kind == BATCH_END {
                changed.generation += 1;
                *self.kernel.ruleset() = changed;
                break;
            }
            let applied = changed.apply(message.kind as u8, message.payload[0], &message.payload[HEADER..]);
            if let Err(errno) = applied {
                self.respond_status(ERROR, message.sequence, errno);
                return;
            }
        }
        for message in messages.iter().filter(|message| message.flags & ACK != 0) {
            self.respond_status(ERROR, message.sequence, 0);
        }
    }

    fn read(&mut self, request: &Message<'_>) {
        let ruleset = self.kernel.ruleset().clone();
        let (message, family) = (request.kind as u8, request.payload[0]);
        let wanted = read(&request.payload[HEADER..]);
        let table = ruleset.tables.get(&(family, get(&wanted, 1).to_vec()));
        let is_dump = request.flags & DUMP == DUMP;
        let listed = match (message, table) {
            (m::GETGEN, _) => vec![generation(&ruleset)],
            (m::GETTABLE, Some(table)) => vec![table.attributes.clone()],
            (_, Some(table)) => objects(table, message, &wanted),
            (_, None) => Vec::new(),
        };
        let sequence = request.sequence;
        if !is_dump && listed.is_empty() {
            return self.respond_status(ERROR, sequence, ENOENT);
        }
        let kind = NF_TABLES << 8 | u16::from(if message == m::GETGEN { m::NEWGEN } else { message - 1 });
        for object in &listed {
            self.respond(kind, sequence, |out| {
                out.raw(&[family, 0, 0, 0]);
                object.iter().for_each(|(kind, payload)| _ = out.bytes(*kind, payload));
            });
        }
        self.respond_status(if is_dump { DONE } else { ERROR }, sequence, 0);
    }
}

fn generation(ruleset: &Ruleset) -> Attributes {
    vec![(1, ruleset.generation.to_be_bytes().to_vec())]
}

/// Returns the objects that a dump lists.
fn objects(table: &RawTable, message: u8, wanted: &Attributes) -> Vec<Attributes> {
    let all = |objects: &[RawObject]| objects.iter().map(|object| object.attributes.clone()).collect();
    match message {
        m::GETCHAIN => all(&table.chains),
        m::GETRULE => all(&table.rules),
        m::GETSET => table.sets.iter().map(|set| set.set.attributes.clone()).collect(),
        m::GETOBJ => all(&table.objects),
        m::GETFLOWTABLE => all(&table.flow_tables),
        m::GETSETELEM => {
            let name = get(wanted, name_attribute(message));
            let Some(set) = table.sets.iter().find(|set| set.set.name == name) else { return Vec::new() };
            let element = |element: &Vec<u8>| {
                let mut list = Batch::new();
                let pushed = list.push("list", 0, 0, |out| _ = out.bytes(a::LIST_ELEM, element));
                pushed.expect("an element is short");
                vec![(2, name.to_vec()), (a::SET_ELEM_LIST, list.bytes()[16..].to_vec())]
            };
            set.elements.values().map(element).collect()
        }
        _ => Vec::new(),
    }
}

impl Transport for FakeSocket {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let messages: Vec<_> = Messages::new(bytes).map(|message| message.expect("well-formed")).collect();
        self.kernel.ruleset().requests += 1;
        match messages.first() {
            Some(first) if first.kind == BATCH_BEGIN => self.transact(&messages),
            _ => messages.iter().for_each(|request| self.read(request)),
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, _is_nonblocking: bool) -> io::Result<Datagram> {
        let datagram = self.responses.pop_front().ok_or_else(|| io::Error::from_raw_os_error(EAGAIN))?;
        buffer.clear();
        buffer.extend(&datagram[..datagram.len().min(buffer.capacity())]);
        Ok(Datagram { length: datagram.len(), port: 0 })
    }

    fn wait(&self, _other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Ok(())
    }

    fn options(&self) -> &dyn SocketOptions {
        &self.options
    }
}
