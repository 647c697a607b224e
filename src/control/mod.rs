//! Controllers, which program the kernel from the cluster's objects, and the loop that runs them.
//!
//! ```text
//! Event ─► Index ─changes─► Controller (dirty set, Schedule) ─Work─► thread ─► kernel
//!   ▲                       │   │  ▲                            │
//! source ◄── Declaration ◄──┘   │  └──── result, drift ◄────────┘
//!                  Status ◄─────┘
//!        --once, health, metrics, Events (`observe`)
//! ```
//!
//! A query (`Queries`) reads the index and the desired Services on the loop, for the local API.
//!
//! A controller that implements `Controller` and is added to the loop gets its objects from the source, health, metrics,
//! Events and `--once` by its `Declaration` and `Status` alone.
//!
//! While a controller's work runs, changes are collected for its next sync.

mod controller;
mod controller_name;
mod declaration;
mod event_loop;
mod exit;
mod finished_sync;
mod mailbox;
mod measurements;
mod observer;
mod progress;
mod query;
mod schedule;
mod status;
mod sync_history;
mod sync_trigger;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use controller::Controller;
pub use controller_name::ControllerName;
pub(crate) use declaration::{Declaration, Watch};
pub(crate) use event_loop::EventLoop;
pub(crate) use exit::{Exit, StopReason};
pub(crate) use finished_sync::{FinishedSync, IsolatedObject, ObjectNotice, RulesError, RulesResult};
pub(crate) use mailbox::{Mailbox, Notifier, Wake};
pub(crate) use measurements::{
    DropCounterLabels, Measurements, PodAddressSource, PodNetworkMeasurements, PolicyMeasurements,
    PortsWithoutLocalEndpoints, REJECTED_NODE, ServiceMeasurements, UnservedCounts,
};
pub(crate) use observer::Observer;
pub use progress::{ITERATION_LIMIT, Progress};
#[cfg(test)]
pub(crate) use query::Query;
pub(crate) use query::{DaemonState, HealthCheckFailures, Queries, QueryError};
pub(crate) use schedule::{Due, Schedule};
pub(crate) use status::{ChangeCounts, Status};
pub use sync_history::{SyncFailure, SyncHistory};
pub(crate) use sync_trigger::SyncTrigger;
pub(crate) use work::{Pending, Work};
