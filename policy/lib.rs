//! NetworkPolicy and ClusterNetworkPolicy: who may talk to whom.
//!
//! ```text
//! Index ──touched──► Compiler ──Changes──► the kernel's table
//!                        │
//!                        ▼
//!                    Compiled ──judge──► explain, truth tables
//! ```
//!
//! [`compile`] and [`judge`] are pure: no I/O, no clock. [`table`] writes what is compiled to the kernel.
#![forbid(unsafe_code)]

pub mod compile;
pub mod established;
pub mod interfaces;
pub mod judge;
pub mod table;

pub use compile::{Changes, Compiled, Compiler, Direction, Scope};
pub use interfaces::{PodInterface, PodInterfaces};
pub use judge::{Connection, Judgement};
