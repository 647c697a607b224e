//! A throwaway cluster in network namespaces, for demonstrations and for tests with real packets.
//!
//! ```text
//! manifests ─ Cluster ─ plan (pure) ─ Plan ─ Lab::up ─ namespaces, wires, echo servers, a daemon per node
//!                                       ▲                └ lab.from(Vantage).tcp(address) → Outcome
//!                lab.apply, lab.delete ─┘
//! ```
//! ```no_run
//! use portcullis_lab::{Cluster, Family, FrontKind, Lab, LabOptions, Vantage};
//!
//! # fn main() -> portcullis_lab::Result<()> {
//! let lab = Lab::up(Cluster::read("fixtures/demo")?, LabOptions::default())?;
//! let web = lab.plan().front("web", &FrontKind::ClusterIp, Family::V4, 80).expect("web has a cluster IP");
//! let tally = lab.from(Vantage::client_on("node-1"))?.tcp_many(web, 200);
//! println!("{:?}, sources {:?}", tally.by, tally.sources);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

mod announce;
mod cluster;
mod conversation;
mod daemon;
mod echo;
mod error;
pub mod expectation;
mod interrupt;
pub mod keeper;
mod machine;
pub mod manifests;
mod matrix;
mod mode;
mod netns;
mod paint;
pub mod plan;
mod probe;
pub mod qemu;
mod reaper;
mod report;
mod run;
mod running;
mod settle;
mod socket;
mod state;
mod stream;
mod synced;
mod traffic;
pub mod uml;
mod volley;
mod wiring;

pub use cluster::{Cluster, Object, ObjectRef};
pub use conversation::Conversation;
pub use daemon::DaemonSpec;
pub use error::{Error, Result};
pub use expectation::excused;
pub use matrix::{Cell, End, Matrix, MatrixOptions, Question, Table};
pub use mode::Mode;
pub use netns::NetNs;
pub use plan::{EchoPort, Families, Family, Front, FrontKind, Plan, PlanOptions, Protocol};
pub use probe::{Outcome, Prober, Tally, Vantage};
pub use report::{Report, Row};
pub use run::{RunOptions, probe, probe_judged, run, run_with};
pub use running::{Lab, LabOptions};
pub use state::{LabState, check_name};
pub use traffic::{Log, Sent, Traffic, TrafficOptions};
