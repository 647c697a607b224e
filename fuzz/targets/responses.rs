//! Acknowledgements and errors.

use portcullis_netlink::batches::Batches;
use portcullis_netlink::message::{Batch, CREATE};
use portcullis_netlink::nf_tables::{Chain, TableFamily, Transaction};
use portcullis_netlink::nfacct::Counters;
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use super::replay::with_responses;

const MESSAGES: usize = 20;

/// Sends batches of independent requests, a transaction, and requests for objects.
pub(crate) fn transactions(input: &[u8]) {
    with_responses(input, || {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut batches = Batches::new();
        for number in 0..MESSAGES {
            batches.push("change", 20, CREATE, |message| _ = message.u32(1, number as u32)).unwrap();
        }
        let mut rejected = Vec::new();
        let result = socket.transact_all("change", &mut batches, |position, error| {
            rejected.push(position);
            let _ = (error.to_string(), error.errno(), error.is_transient());
            Ok(())
        });
        assert!(rejected.iter().all(|position| *position < MESSAGES), "{rejected:?}");
        if let Err(error) = result {
            assert!(!error.to_string().is_empty());
        }
    });
    with_responses(input, || {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut transaction = Transaction::new("change a table", TableFamily::Ip, "table").unwrap();
        transaction.add_table(None).unwrap();
        transaction.add_chain("chain", &Chain::default()).unwrap();
        if let Err(error) = transaction.commit(&mut socket) {
            assert!(!error.to_string().is_empty());
        }
        let mut request = Batch::with_message("read", 20, 0, |_| {}).unwrap();
        let _ = socket.query("read", &mut request, |message| Ok(message.payload.len()));
    });
    with_responses(input, || {
        let mut counters = Counters::open().unwrap();
        let _ = (counters.available(), counters.list(), counters.get("ct_state_invalid_dropped"));
    });
}
