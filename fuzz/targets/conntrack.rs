//! Dumps of conntrack.

use portcullis_netlink::Family;
use portcullis_netlink::conntrack::{ConnectionEvents, Conntrack, Filter};

use super::replay::with_responses;

/// Lists flows, and deletes some of those that are listed.
pub(crate) fn dump(input: &[u8]) {
    let open = || Conntrack::open().unwrap();
    with_responses(input, || {
        let mut flows = 0;
        let _ = open().dump(&Family::ALL, &[], |flow| {
            flows += 1;
            let _ = (format!("{flow:?}"), flow.is_forwarded_by_ipvs());
            Ok(())
        });
        assert!(flows <= input.len() / 16, "each flow is a message");
    });
    with_responses(input, || {
        let deleted = open().delete_where(&Family::ALL, &[17, 132], |flow| flow.has_destination_nat());
        if let Ok(counts) = deleted {
            assert!(counts.deleted <= counts.examined);
        }
    });
    with_responses(input, || _ = open().delete_matching(&Filter::new(Family::V4).protocol(17)));
    with_responses(input, || _ = open().established(Family::V6, |_| ()));
}

/// Reads notifications about new and ended flows.
pub(crate) fn events(input: &[u8]) {
    with_responses(input, || {
        let mut subscription = ConnectionEvents::listen().unwrap();
        let mut events = 0;
        // Every datagram has at least one byte. After an error the subscription goes on.
        let ended = (0..input.len() + 8).any(|_| {
            let received = subscription.receive(|event| {
                events += 1;
                let _ = (format!("{event:?}"), event.flow().is_forwarded_by_ipvs());
            });
            matches!(received, Ok(false))
        });
        assert!(ended, "notifications end with the input");
        assert!(events <= input.len() / 16, "each event is a message");
    });
}
