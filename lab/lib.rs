//! A throwaway cluster in network namespaces.

mod cluster;
mod error;
pub mod manifests;
pub mod plan;

pub use cluster::{Cluster, Object, ObjectRef};
pub use error::{Error, Result};
pub use plan::{Families, Plan, PlanOptions};
