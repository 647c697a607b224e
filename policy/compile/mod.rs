//! Policies, compiled: what the kernel has to know to judge the pods of a node, and what changed of it.
//!
//! ```text
//! address ─► LocalPod ─┬─ ingress: Profile ─┬─ admin    ─► RulesId ─► Rule*   first match decides
//!                      └─ egress:  Profile  ├─ network  ─► RulesId ─► Rule*   any match allows, else denied
//!                                           └─ baseline ─► RulesId ─► Rule*   first match decides
//! Rule ── peers ─► SetId ─► addresses      (selectors, shared by all rules with the same)
//!      │        └► Blocks                  (ipBlock, networks)
//!      └─ ports ─► numbers, NamedPortId ─► (address, port)
//! ```
//!
//! Everything is a function of the objects' content: the same cluster gives the same values and the same
//! names, whatever came first and however often the program was restarted. Addresses are of both families;
//! who writes rules splits them.

mod addresses;
mod blocks;
mod changes;
mod compiled;
mod compiler;
mod identifier;
mod members;
mod named_port;
mod peer_set;
mod policy_id;
mod ports;
mod profile;
mod replicas;
mod rule;
mod selection;
mod tally;
mod translate;
mod work;

pub use blocks::Blocks;
pub use changes::{AddressChange, Changes, Judged, MembersChange, NodeChange, RulesChange, SetChange};
pub use compiled::{Compiled, LocalPod};
pub use compiler::{Compiler, Scope};
pub use named_port::NamedPortId;
pub use peer_set::{NamespaceScope, PeerSelector, SetId};
pub use policy_id::{Direction, PolicyId, RulesId, Tier};
pub use ports::{NumericPorts, Ports, ProtocolPorts};
pub use profile::Profile;
pub use rule::{Action, Peers, Rule};
