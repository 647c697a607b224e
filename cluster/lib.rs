//! Kubernetes objects in compact form, their index, and the desired state of this node.
//!
//! ```text
//! Event ──► Index ──changes──► dirty Services ──► Desired ──ServiceChange──► proxy mode
//!           compact objects                      ServicePort per family, its frontends and endpoints
//! ```
//!
//! Pure: no I/O, no async code, no clock. The time and the name of the node are arguments.
#![forbid(unsafe_code)]

pub mod address;
mod backoff;
mod bisect;
pub mod change;
pub mod cluster_network_policy;
pub mod desired;
pub mod endpoint_slice;
pub mod endpoint_topology;
pub mod event;
mod excerpt;
pub mod index;
mod interned;
pub mod ipvs_scheduler;
pub mod json_object;
mod kind;
pub mod label_selector;
pub mod labels;
pub mod manifest;
mod metadata;
pub mod name;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod object;
mod own_node;
pub mod pod;
mod pod_ips;
pub mod policy_size;
mod port_name;
pub mod problem;
pub mod protocol;
mod rejected_objects;
pub mod service;
pub mod service_cidr;
pub mod service_selector;
pub mod slice_endpoints;
pub mod sparse;
mod strict_deserializer;
mod strict_json;
pub mod traffic_policy;
pub mod unreadable;

pub use address::Family;
pub use backoff::Backoff;
pub use bisect::{Bisect, BisectOrder, Budget};
pub use change::Change;
pub use event::Event;
pub use index::Index;
pub use ipvs_scheduler::IpvsScheduler;
pub use kind::Kind;
pub use name::{Name, NamespacedName};
pub use object::{Object, ObjectKey};
pub use own_node::MissingNodeFacts;
pub use problem::Problem;
pub use protocol::Protocol;
pub use rejected_objects::RejectedObjects;
pub use traffic_policy::TrafficPolicy;
pub use unreadable::UnreadableObjects;
