//! Compiler of policies to profiles, rules and sets, and their changes.
//!
//! ```text
//! address ─► LocalPod ─┬─ ingress: Profile ─┬─ admin    ─► RulesId ─► PolicyRule*   first match decides
//!                      └─ egress:  Profile  ├─ network  ─► RulesId ─► PolicyRule*   any match allows, else denied
//!                                           └─ baseline ─► RulesId ─► PolicyRule*   first match decides
//! PolicyRule ─┬─ peers ─┬► PeerSetId ─► addresses      (selectors; shared by all rules with the same selectors)
//!             │         └► AddressRanges               (ipBlock, networks)
//!             └─ ports ─► numbers, NamedPortId ─► (address, port)
//! ```
//!
//! All values and names are functions of the objects' content, independent of the order of events and of restarts.
//! Addresses of both families are mixed; [`table`](crate::table) separates them.

mod address_index;
mod address_ranges;
mod blocks_id;
mod changes;
mod compiled_policies;
mod compiler;
mod dirty_objects;
mod few;
mod held_rules;
mod identifier;
mod live_pods;
mod named_port;
mod peer_set;
mod policy_id;
mod ports;
mod profile;
mod reference_counts;
mod rule;
mod scope;
mod selection;
mod selectors_by_label;
mod set_members;
mod touched_objects;
mod translate;

pub use address_ranges::AddressRanges;
pub use blocks_id::BlocksId;
pub use changes::{AddressChange, NodeChange, PodProfiles, PolicyChanges, RulesChange, SetChange, SetUpdate};
pub use compiled_policies::{CompiledPolicies, LocalPod};
pub use compiler::Compiler;
pub use dirty_objects::DirtyPolicyObjects;
pub(crate) use identifier::suffix;
pub use named_port::NamedPortId;
pub use peer_set::{NamespaceScope, PeerSelector, PeerSetId};
pub use policy_id::{Direction, PolicyId, PolicyTier, RulesId};
pub use ports::{NumericPorts, ProtocolPorts, RulePorts};
pub use profile::Profile;
pub(crate) use reference_counts::ReferenceCounts;
pub use rule::{PolicyRule, RuleAction, RulePeers};
pub use scope::Scope;
