//! Dumps of ip_vs.

use portcullis_netlink::ip_vs::IpVs;

use super::replay::with_responses;

/// Lists virtual servers, their counters, and the real servers of each.
pub(crate) fn dumps(input: &[u8]) {
    with_responses(input, || {
        let Ok(Some(mut ip_vs)) = IpVs::open() else { return };
        let servers = ip_vs.virtual_servers().unwrap_or_default();
        assert!(servers.len() <= input.len() / 16, "each virtual server is a message");
        for (server, config) in &servers {
            let _ = (format!("{server:?} {config:?}"), ip_vs.real_servers(server), ip_vs.statistics(server));
            let _ = ip_vs.get(server);
        }
        let _ = (ip_vs.all_statistics(), ip_vs.timeouts());
    });
}
