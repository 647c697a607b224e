//! The pod network on the screen of `portcullis status`.

use std::io;

use super::screen::Screen;
use crate::observe::local_api::documents::{PodAddressesStatus, PodNetworkStatus};
use crate::plural::plural;

/// The number of free addresses above which the exact number tells nothing: pod CIDRs of IPv6.
const PLENTY: u64 = 1_000_000_000;

/// Prints the pod network of this node.
pub(super) fn print(status: &PodNetworkStatus, screen: &mut Screen<'_>) -> io::Result<()> {
    let mut parts = vec![status.mode.clone(), format!("wiring {}", status.wiring)];
    parts.extend(status.mtu.map(|mtu| format!("MTU {mtu}")));
    parts.extend(status.nodes.map(|nodes| plural(nodes, "node")));
    parts.push(if status.masquerade { "egress masqueraded" } else { "egress not masqueraded" }.to_owned());
    let readiness = match (status.ready, &status.reason) {
        (None, _) => "not synced yet".to_owned(),
        (Some(true), _) => "ready".to_owned(),
        (Some(false), None) => "NOT READY".to_owned(),
        (Some(false), Some(reason)) => format!("NOT READY: {reason}"),
    };
    screen.line("Pod network", format!("{}; {readiness}", parts.join(", ")))?;
    match &status.addresses {
        Some(addresses) => {
            for range in addresses {
                screen.line("", format!("  {}", addresses_text(range)))?;
            }
        }
        None if status.ready.is_some() => {
            screen.line("", "  addresses: not known, as the records of the CNI plugin cannot be read")?;
        }
        None => {}
    }
    let unreachable = &status.unreachable_nodes;
    if unreachable.count > 0 {
        screen.line("Unreachable", format!("pods of {}:", plural(unreachable.count, "node")))?;
        screen.list(unreachable, |node| format!("{}: {}", node.node, node.text))?;
    }
    Ok(())
}

fn addresses_text(range: &PodAddressesStatus) -> String {
    let PodAddressesStatus { pod_cidr, held, other_plugin, free } = range;
    let other = match other_plugin {
        0 => String::new(),
        number => format!(", {number} by pods of another network plugin"),
    };
    let free = if *free > PLENTY { "more than a billion".to_owned() } else { free.to_string() };
    format!("{pod_cidr}: {held} held by pods{other}, {free} free")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::local_api::documents::{LimitedList, samples};

    fn printed(status: &PodNetworkStatus) -> String {
        let mut text = Vec::new();
        print(status, &mut Screen { out: &mut text, has_colors: false }).expect("a Vec takes everything");
        String::from_utf8(text).expect("it prints UTF-8")
    }

    #[test]
    fn a_network_that_is_not_synced_is_not_shown_as_ready() {
        let unknown = PodNetworkStatus {
            ready: None,
            reason: None,
            mtu: None,
            pod_cidrs: Vec::new(),
            addresses: None,
            nodes: None,
            unreachable_nodes: LimitedList::new([], 100),
            ..samples::pod_network()
        };
        assert_eq!(
            printed(&unknown),
            "Pod network cross-subnet, wiring ptp, egress masqueraded; not synced yet\n"
        );
        let unreadable = PodNetworkStatus { ready: Some(true), masquerade: false, ..unknown };
        assert_eq!(
            printed(&unreadable),
            "Pod network cross-subnet, wiring ptp, egress not masqueraded; ready\n              addresses: not known, as the records \
             of the CNI plugin cannot be read\n"
        );
    }
}
