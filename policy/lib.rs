//! NetworkPolicy and ClusterNetworkPolicy: compilation, evaluation and enforcement.
//!
//! ```text
//! Index ──touched──► Compiler ──PolicyChanges──► PolicyTable ──► kernel
//!                        │
//!                        ▼
//!                 CompiledPolicies ──evaluate──► explain, matrix, truth tables
//! ```
//!
//! [`compile`] and [`evaluation`] are pure: no I/O, no clock. [`table`] renders compiled policies as nf_tables objects
//! and writes these to the kernel.
#![forbid(unsafe_code)]

pub mod compile;
pub mod established;
pub mod evaluation;
pub mod interfaces;
pub mod table;

pub use compile::{CompiledPolicies, Compiler, Direction, PolicyChanges, Scope};
pub use evaluation::{Connection, Evaluation};
pub use interfaces::{PodInterface, PodInterfaces};
