//! Tracing of one connection's packets through the rules of the kernel.
//!
//! ```text
//! PacketTracer::start ─► own tables: rules that set nftrace, markers at each hook ─┐
//!                        (owned by a socket: the kernel removes them with it)      ├─► kernel
//! PacketTracer::read ◄── NFT_MSG_TRACE: one TraceEvent per rule, policy, marker ◄──┘
//! ```
//! The kernel reports rules of nf_tables only, those of `iptables-nft` included. Markers show where a packet was when a
//! part of the kernel without trace support (iptables legacy, IPVS, routing) took it.

mod event;
mod hooks;
mod tables;

use std::collections::HashMap;
use std::net::IpAddr;

pub use event::{TraceEvent, TraceFamily, TraceStep, TraceVerdict, TracedAddresses, TracedDirection};
pub use hooks::Marker;

use self::tables::{Contents, add_tables};
use crate::error::Result;
use crate::socket::{NetlinkProtocol, Socket};

/// `NFNLGRP_NFTRACE`.
const GROUP: u32 = 9;

const ACTION: &str = "trace packets";

/// Maximum number of packets that a tracer follows. Its rules mark one packet in each direction; other processes may trace
/// packets at the same time.
const MAX_PACKETS: usize = 1024;

/// The addresses and ports of the first packet of a connection, as its sender sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedFlow {
    /// The source address.
    pub source: IpAddr,
    /// The source port.
    pub source_port: u16,
    /// The destination address, of the same family.
    pub destination: IpAddr,
    /// The destination port.
    pub destination_port: u16,
    /// The transport protocol (`IPPROTO_*`).
    pub protocol: u8,
}

/// Traces the first packet of a flow, and the first packets of the replies, in one network namespace.
#[derive(Debug)]
pub struct PacketTracer {
    events: Socket,
    /// Owns the tables: the kernel removes them when it is closed, also if the process is killed.
    _owner: Socket,
    table: String,
    directions: HashMap<u32, TracedDirection>,
}

impl PacketTracer {
    /// Starts to trace in the calling thread's network namespace. With `replies`, also the replies by their connection,
    /// which enables connection tracking in the namespace meanwhile.
    ///
    /// # Errors
    /// [`crate::Error::Rejected`] or [`crate::Error::Object`]: `EPERM` without CAP_NET_ADMIN, `EOPNOTSUPP` on kernels before
    /// 5.12, which have no table owners.
    pub fn start(flow: &TracedFlow, replies: bool) -> Result<Self> {
        let events = Socket::listen(NetlinkProtocol::Netfilter, &[GROUP])?;
        events.set_nonblocking()?;
        let mut owner = Socket::open(NetlinkProtocol::Netfilter)?;
        // A port ID is unique in its network namespace.
        let table = format!("portcullis-probe-{}", owner.port()?);
        add_tables(&mut owner, &table, &Contents { flow: *flow, replies })?;
        Ok(PacketTracer { events, _owner: owner, table, directions: HashMap::new() })
    }

    /// Returns the name of its tables.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Returns the socket that becomes readable with new events.
    pub fn socket(&self) -> &Socket {
        &self.events
    }

    /// Reads all events that have arrived, in their order. Does not wait.
    ///
    /// # Errors
    /// [`crate::Error::Overrun`] if events were lost.
    pub fn read(&mut self) -> Result<Vec<TraceEvent>> {
        let PacketTracer { events, table, directions, .. } = self;
        let mut read = Vec::new();
        let mut of_chain_end: Option<TraceEvent> = None;
        while events.events(ACTION, |message| {
            let Some(mut event) = TraceEvent::parse(&message)? else { return Ok(()) };
            if event.is_chain_end() {
                of_chain_end = Some(event);
                return Ok(());
            }
            if let Some(before) = of_chain_end.take().filter(|before| before.packet == event.packet) {
                // Only the first event of a chain has the headers and the interfaces.
                event.addresses = event.addresses.or(before.addresses);
                event.input = event.input.or(before.input);
                event.output = event.output.or(before.output);
            }
            if event.table == *table {
                event.marker = hooks::marker(&event.chain);
                if let Some(direction) = tables::direction_of_rule(&event)
                    && directions.len() < MAX_PACKETS
                {
                    // The same memory may hold another packet later, with the same ID.
                    directions.insert(event.packet, direction);
                }
            }
            if let Some(direction) = directions.get(&event.packet) {
                event.direction = *direction;
                read.push(event);
            }
            Ok(())
        })? {}
        Ok(read)
    }
}
