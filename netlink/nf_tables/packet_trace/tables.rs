//! The tables of a tracer.

use super::event::{TraceEvent, TraceStep, TracedDirection};
use super::hooks::{FIRST, Marker, markers};
use super::{ACTION, TracedFlow};
use crate::attribute::Writer;
use crate::error::Result;
use crate::family::Family;
use crate::message::CREATE;
use crate::nf_tables::constants::{attributes as a, messages as m};
use crate::nf_tables::data::{Register, Value};
use crate::nf_tables::expression::{Comparison, Expression, RateUnit};
use crate::nf_tables::field::{Ct, Field};
use crate::nf_tables::rule::Rule;
use crate::nf_tables::table::{BaseChain, Chain, ChainKind, TableFamily};
use crate::nf_tables::transaction::{APPEND, Transaction};
use crate::socket::Socket;

/// `NFT_TABLE_F_OWNER`: only the socket that added the table may change it, and the table is removed with the socket.
const OWNER: u32 = 2;
/// `NFT_META_NFTRACE`.
const META_NFTRACE: u32 = 12;
/// `IP_CT_DIR_ORIGINAL`.
const ORIGINAL: u8 = 0;
/// `IP_CT_DIR_REPLY`.
const REPLY: u8 = 1;

/// Keys of a connection's original addresses and ports (`NFT_CT_*`).
mod ct {
    pub(super) const PROTOCOL: u32 = 10;
    pub(super) const PROTO_SRC: u32 = 11;
    pub(super) const PROTO_DST: u32 = 12;
    pub(super) const SRC_IP: u32 = 19;
    pub(super) const DST_IP: u32 = 20;
    pub(super) const SRC_IP6: u32 = 21;
    pub(super) const DST_IP6: u32 = 22;
}

/// The contents of a tracer's tables.
pub(super) struct Contents {
    pub(super) flow: TracedFlow,
    /// Trace replies too.
    pub(super) replies: bool,
}

/// Adds the tables. A kernel without nf_tables for bridges has none for them.
pub(super) fn add_tables(owner: &mut Socket, table: &str, contents: &Contents) -> Result<()> {
    transaction(TableFamily::Inet, table, contents)?.commit(owner)?;
    match transaction(TableFamily::Bridge, table, contents)?.commit(owner) {
        Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOENT)) => {
            tracing::debug!(%error, "this kernel cannot trace packets in bridges");
            Ok(())
        }
        done => done,
    }
}

fn transaction(family: TableFamily, table: &str, contents: &Contents) -> Result<Transaction> {
    let mut transaction = Transaction::new(ACTION, family, table)?;
    transaction.push(m::NEWTABLE, CREATE, a::TABLE_NAME, |message| {
        message.u32_be(a::TABLE_FLAGS, OWNER);
    })?;
    for marker in markers(family) {
        let Marker { hook, priority } = marker;
        let base = BaseChain { kind: ChainKind::Filter, hook, priority };
        let name = marker.chain();
        transaction.add_chain(&name, &Chain { base: Some(base), ..Chain::default() })?;
        let has_connections = contents.replies && family == TableFamily::Inet;
        // A packet that a bridge passes to its host loses nftrace, so the rules of later hooks set it again.
        match priority {
            FIRST if !marker.is_tracked() => {
                add_rule(&mut transaction, &name, |list| write_flow(&contents.flow, family, list))?;
            }
            FIRST if has_connections => {
                add_rule(&mut transaction, &name, |list| write_connection(&contents.flow, ORIGINAL, list))?;
            }
            _ if has_connections && marker.matches_replies() => {
                add_rule(&mut transaction, &name, |list| write_connection(&contents.flow, REPLY, list))?;
            }
            _ => {}
        }
    }
    Ok(transaction)
}

/// Adds a rule that traces matching packets.
fn add_rule(transaction: &mut Transaction, chain: &str, matches: impl FnOnce(&mut Writer<'_>)) -> Result<()> {
    transaction.push(m::NEWRULE, CREATE | APPEND, a::RULE_TABLE, |message| {
        message.text(a::RULE_CHAIN, chain);
        message.nested(a::RULE_EXPRESSIONS, |list| {
            matches(list);
            // Not packets that follow, such as a retransmission.
            Expression::Limit { rate: 1, unit: RateUnit::Hour, burst: 1 }.write(list);
            let one = Value::from(1u8);
            Expression::Immediate { value: one, to: Register::FIRST }.write(list);
            expression(list, "meta", |data| {
                data.u32_be(a::META_KEY, META_NFTRACE).u32_be(a::META_SREG, Register::FIRST.number());
            });
        });
    })
}

fn write_flow(flow: &TracedFlow, table: TableFamily, list: &mut Writer<'_>) {
    let family = Family::from_address(flow.source);
    let rule = match table {
        TableFamily::Bridge => Rule::new().ether_family(family),
        _ => Rule::new().family(family),
    };
    let rule = rule
        .is(Field::Source(family), flow.source)
        .is(Field::Destination(family), flow.destination)
        .protocol(flow.protocol)
        .is(Field::SourcePort, flow.source_port)
        .is(Field::DestinationPort, flow.destination_port);
    rule.expressions().iter().for_each(|expression| expression.write(list));
}

/// Writes the match of packets in one direction of the flow's connection, ICMP errors included, whatever their addresses.
fn write_connection(flow: &TracedFlow, direction: u8, list: &mut Writer<'_>) {
    let (source, destination) = match flow.source.is_ipv4() {
        true => (ct::SRC_IP, ct::DST_IP),
        false => (ct::SRC_IP6, ct::DST_IP6),
    };
    let direction = Rule::new().is(Field::Ct(Ct::Direction), direction);
    direction.expressions().iter().for_each(|expression| expression.write(list));
    let originals: [(u32, Value); 5] = [
        (source, flow.source.into()),
        (destination, flow.destination.into()),
        (ct::PROTOCOL, flow.protocol.into()),
        (ct::PROTO_SRC, flow.source_port.into()),
        (ct::PROTO_DST, flow.destination_port.into()),
    ];
    for (key, with) in originals {
        let from = Register::FIRST;
        expression(list, "ct", |data| {
            data.u32_be(a::CT_KEY, key).u32_be(a::CT_DREG, from.number()).u8(a::CT_DIRECTION, ORIGINAL);
        });
        Expression::Compare { from, op: Comparison::Equal, with }.write(list);
    }
}

fn expression(list: &mut Writer<'_>, name: &str, data: impl FnOnce(&mut Writer<'_>)) {
    list.nested(a::LIST_ELEM, |element| {
        element.text(a::EXPR_NAME, name).nested(a::EXPR_DATA, data);
    });
}

/// Returns the direction of a packet that one of the tracer's own rules has matched.
pub(super) fn direction_of_rule(event: &TraceEvent) -> Option<TracedDirection> {
    if !matches!(event.step, TraceStep::Rule { .. }) {
        return None;
    }
    match event.marker?.matches_replies() {
        true => Some(TracedDirection::Reply),
        false => Some(TracedDirection::Original),
    }
}
