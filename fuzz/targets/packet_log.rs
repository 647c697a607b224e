//! Packets that rules log, and their headers.

use std::time::SystemTime;

use portcullis_netlink::log::{PacketHeaders, PacketLog};

use super::replay::with_responses;

/// Reads logged packets, and the input itself as the headers of a packet.
pub(crate) fn packets(input: &[u8]) {
    with_responses(&[], || {
        let headers = PacketHeaders::parse(input);
        assert!(headers.is_none() || input.len() >= 20, "an IP header has 20 bytes");
    });
    with_responses(input, || {
        // The requests that open the log take responses from the input.
        let Ok(Some(mut log)) = PacketLog::bind(5) else { return };
        let mut packets = 0;
        // Every datagram has at least one byte.
        let ended = (0..input.len() + 8).any(|_| {
            let received = log.receive(|packet| {
                packets += 1;
                let _ = (format!("{packet:?}"), packet.headers(), packet.original_tuple());
                let _ = packet.time(SystemTime::UNIX_EPOCH);
            });
            matches!(received, Ok(false))
        });
        assert!(ended, "packets end with the input");
        assert!(packets <= input.len() / 16, "each packet is a message");
    });
}
