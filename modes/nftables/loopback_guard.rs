//! The loopback guard: the rule that drops packets from other hosts to loopback addresses, and a table of its own for it.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use portcullis_cluster::Family;
use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{
    self, BaseChain, CT_STATUS_DNAT, Chain, ChainKind, Ct, CtState, Field, Hook, Rule, TableFamily,
    Transaction, Verdict,
};
use portcullis_netlink::socket::Socket;

use super::settings::{kernel_family, match_block, match_input};

/// The table with the loopback guard while no proxy mode has one: before the first sync and after a cleanup.
pub(crate) const GUARD_TABLE: &str = "portcullis-loopback";

const CHAIN: &str = "filter-input";

/// Returns the loopback block of a family: 127.0.0.0/8 or ::1.
pub(super) fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => crate::iptables::loopback_block(),
        Family::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    }
}

/// Returns the rule that drops packets to loopback addresses from interfaces other than `lo`, except packets of
/// connections in conntrack and packets whose destination was translated. Without `route_localnet` the kernel drops them.
pub(super) fn rule(family: Family) -> Rule {
    let destination = Field::Destination(kernel_family(family));
    match_input(match_block(Rule::new(), destination, loopback(family), false), "lo", true)
        .no_bit(Field::Ct(Ct::State), CtState::ESTABLISHED | CtState::RELATED)
        .no_bit(Field::Ct(Ct::Status), CT_STATUS_DNAT)
        .then(Verdict::Drop)
        .with_comment("packets from other hosts to loopback addresses")
}

/// Adds the table with the IPv4 rule, or rewrites it. Returns true if it was added, and `None` if the kernel has no
/// nf_tables for IPv4.
///
/// # Errors
/// The kernel rejects the table, for example with `EPERM` without CAP_NET_ADMIN.
pub(crate) fn add_table() -> Result<Option<bool>> {
    let Some(mut socket) = nf_tables::open()? else { return Ok(None) };
    let mut is_there = false;
    let listed =
        nf_tables::list_chains(&mut socket, TableFamily::Ip, |chain| is_there |= chain.table == GUARD_TABLE);
    match listed.and_then(|()| write_table(&mut socket)) {
        Ok(()) => Ok(Some(!is_there)),
        Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_table(socket: &mut Socket) -> Result<()> {
    let mut transaction = Transaction::new("add the loopback guard", TableFamily::Ip, GUARD_TABLE)?;
    transaction.add_table(Some("guards loopback addresses while route_localnet is set"))?;
    let base = BaseChain { kind: ChainKind::Filter, hook: Hook::Input, priority: 0 };
    let guard = rule(Family::V4);
    transaction.add_chain(CHAIN, &Chain { base: Some(base), ..Chain::new(Vec::new()) })?;
    transaction.flush_chain(CHAIN)?;
    transaction.add_rule(CHAIN, &guard)?;
    transaction.commit(socket)
}
