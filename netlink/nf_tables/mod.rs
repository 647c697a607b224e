//! nf_tables.

mod generation;
mod table;
mod transaction;

pub use generation::{generation, open};
pub use table::{TableFamily, delete_table};
pub use transaction::Transaction;
