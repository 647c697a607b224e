//! nf_tables.

mod generation;

pub use generation::generation;
