//! Dumps and notifications of rtnetlink.

use portcullis_netlink::Family;
use portcullis_netlink::route::{AddressMonitor, LinkMonitor, LinkPeer, Rtnetlink};

use super::replay::with_responses;

/// Lists links, addresses and routes.
pub(crate) fn dumps(input: &[u8]) {
    let open = || Rtnetlink::open().unwrap();
    with_responses(input, || {
        let links = open().links().unwrap_or_default();
        assert!(links.len() <= input.len() / 16, "each link is a message");
        links.iter().for_each(|link| _ = (link.is_up(), link.is_loopback(), format!("{link:?}")));
    });
    with_responses(input, || {
        let addresses = open().addresses(&Family::ALL).unwrap_or_default();
        assert!(addresses.len() <= input.len() / 16, "each address is a message");
    });
    with_responses(input, || _ = open().link_index("kube-ipvs0"));
    with_responses(input, || _ = open().link_addresses(1));
    with_responses(input, || _ = open().default_route_source(Family::V4));
    with_responses(input, || _ = open().default_route_source(Family::V6));
    with_responses(input, || _ = open().local_route_addresses());
    let _ = std::mem::size_of::<LinkPeer>();
}

/// Reads notifications about addresses and links.
pub(crate) fn events(input: &[u8]) {
    with_responses(input, || {
        let mut monitor = AddressMonitor::open().unwrap();
        let mut events = 0;
        // Every datagram has at least one byte. After an error the subscription goes on.
        for _ in 0..=input.len() {
            match monitor.try_next() {
                Ok(Some(_)) => events += 1,
                Ok(None) => break,
                Err(_) => {}
            }
        }
        assert!(events <= input.len(), "each event is a message");
        let mut links = LinkMonitor::open().unwrap();
        let drained = (0..=input.len()).any(|_| links.wait().is_ok() && links.drain().is_ok());
        assert!(drained, "notifications end with the input");
    });
}
