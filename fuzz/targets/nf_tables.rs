//! Dumps and notifications of nf_tables.

use portcullis_netlink::nf_tables::{self, DesiredTable, Expression, RulesetEvents, Table, TableFamily};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use super::fake_nf_tables::FakeNfTables;
use super::replay::with_responses;

/// The table of the recordings.
pub(super) const TABLE: &str = "portcullis";
const FAMILY: TableFamily = TableFamily::Ip;

/// Reads a table, prints it, and writes it again: the table that is read back is the same.
pub(crate) fn dump(input: &[u8]) {
    let table = with_responses(input, || {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let _ = nf_tables::generation(&mut socket);
        let _ = nf_tables::list_chains(&mut socket, FAMILY, |_| ());
        let _ = nf_tables::read_counters(&mut socket, FAMILY, TABLE);
        nf_tables::read(&mut socket, FAMILY, TABLE)
    });
    // Whatever another process did to the table, a commit ends.
    with_responses(input, || {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut desired = DesiredTable::new(FAMILY, TABLE);
        let _ = nf_tables::commit(&mut socket, &mut desired);
        let _ = nf_tables::compare(&mut socket, &desired);
    });
    let Ok(Some((table, _))) = table else { return };
    let text = table.to_string();
    assert!(text.starts_with("table ip "), "{text}");
    if is_expressible(&table) {
        let kernel = FakeNfTables::default();
        let read_back = kernel.run(|| {
            let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
            // A dump may lack objects that others refer to, which the kernel rejects.
            nf_tables::commit(&mut socket, &mut desired_from(&table)).ok()?;
            nf_tables::read(&mut socket, FAMILY, TABLE).unwrap()
        });
        let Some((read_back, unknown)) = read_back else { return };
        assert_eq!(unknown, Vec::<String>::new());
        assert_eq!(read_back, table);
    }
}

/// Returns true if everything in the table can be written, as all tables of this program can.
fn is_expressible(table: &Table) -> bool {
    let is_known = |expression: &Expression| !matches!(expression, Expression::Unknown(_));
    let mut rules = table.chains.values().flat_map(|chain| &chain.rules);
    rules.all(|rule| rule.expressions().iter().all(is_known))
        && table.sets.values().all(|set| set.unknown.is_empty())
}

/// Returns a table to write.
pub(super) fn desired_from(table: &Table) -> DesiredTable {
    let mut desired = DesiredTable::new(table.family, &table.name);
    if let Some(comment) = &table.comment {
        desired.set_comment(comment);
    }
    table.counters.iter().for_each(|(name, comment)| desired.put_counter(name, comment.as_deref()));
    table.sets.iter().for_each(|(name, set)| desired.put_set(name, set.clone()));
    table.chains.iter().for_each(|(name, chain)| desired.put_chain(name, chain.clone()));
    desired
}

/// Reads notifications of both subscriptions.
pub(crate) fn events(input: &[u8]) {
    with_responses(input, || {
        let own = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let subscriptions = [
            RulesetEvents::listen(TABLE, &own).unwrap(),
            RulesetEvents::listen_to_iptables("KUBE-").unwrap(),
        ];
        for mut events in subscriptions {
            // Every datagram has at least one byte. An error is reported to the caller, who goes on.
            for _ in 0..=input.len() {
                let mut transactions = 0;
                let result = events.wait(|_| transactions += 1);
                assert!(transactions <= input.len() / 16, "a transaction ends with a message");
                if matches!(result, Ok(()) if transactions == 0) {
                    break;
                }
            }
        }
    });
}
