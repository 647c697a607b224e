//! nf_tables.

mod chains;
mod generation;
mod table;
mod transaction;

pub use chains::{Chain, chains};
pub use generation::{generation, open};
pub use table::{TableFamily, delete_table};
pub use transaction::Transaction;
