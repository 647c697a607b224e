//! Topology hints, and the cases in which they are ignored.

use crate::expectation::{only, spread};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node, row};
use crate::testbed::Setup;

const WEB: [&str; 3] = ["a", "b", "c"];

#[rustfmt::skip]
pub(crate) fn topology_hints(mode: Mode) {
    let to = |service| cluster_ip(service, 80).v4();
    Setup::new("topology-hints.yaml").mode(mode).up().check(&[
        row("zone hints, in zone-a", client(1), to("by-zone"), only("a").kept()),
        row("zone hints, in zone-b", client(2), to("by-zone"), spread(&["b", "c"]).kept()),
        row("zone hints, from a node", node(2), to("by-zone"), spread(&["b", "c"])),
        row("a hint may name another zone", client(1), to("zone-crossed"), spread(&["b", "c"])),
        row("an endpoint may serve several zones", client(2), to("zone-crossed"), spread(&["a", "c"])),
        row("one endpoint without a hint: hints are ignored", client(1), to("zone-one-without"), spread(&WEB)),
        row("no endpoint for this zone: hints are ignored", client(1), to("zone-nowhere"), spread(&WEB)),
        row("node hints, on node-1", client(1), to("by-node"), only("a")),
        row("node hints, on node-2", client(2), to("by-node"), spread(&["b", "c"])),
        row("no endpoint for this node: zone hints apply", client(1), to("node-then-zone"), spread(&["a", "b"])),
        row("node hints take precedence over zone hints", client(2), to("node-then-zone"), spread(&WEB)),
        row("one endpoint without a node hint: hints are ignored", client(1), to("node-one-without"), spread(&WEB)),
        row("traffic policy Local takes precedence over hints", client(1), to("hinted-local"), only("a")),
        row("traffic policy Local takes precedence over hints on the other node", client(2), to("hinted-local"), only("b")),
    ]);
    Setup::new("node-without-zone.yaml").mode(mode).up().check(&[
        row("a node without a zone: hints are ignored", client(1), to("by-zone"), spread(&WEB)),
        row("the node with a zone", client(2), to("by-zone"), spread(&["b", "c"])),
    ]);
}
