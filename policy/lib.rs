//! NetworkPolicy and ClusterNetworkPolicy: who may talk to whom.
//!
//! ```text
//! Index ──touched──► Compiler ──PolicyChanges──► the kernel's table
//!                        │
//!                        ▼
//!                    CompiledPolicies ──judge──► explain, truth tables
//! ```
//!
//! [`compile`] and [`judge`] are pure: no I/O, no clock. [`table`] writes what is compiled to the kernel.
#![forbid(unsafe_code)]

pub mod compile;
pub mod established;
pub mod evaluation;
pub mod interfaces;
pub mod table;

pub use compile::{CompiledPolicies, Compiler, Direction, PolicyChanges, Scope};
pub use evaluation::{Connection, Evaluation};
pub use interfaces::{PodInterface, PodInterfaces};
