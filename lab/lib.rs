//! A throwaway cluster in network namespaces, for demonstrations and for tests with real packets.
//!
//! ```text
//! manifests ─ ClusterObjects ─ plan (pure) ─ ClusterPlan ─ Lab::up ─ namespaces, links, echo servers, a daemon per node
//!                                                ▲            └ lab.prober(Vantage).tcp(address) → ProbeOutcome
//!                         lab.apply, lab.delete ─┘
//! ```
//! ```no_run
//! use portcullis_lab::{ClusterObjects, Family, FrontendKind, Lab, LabOptions, Vantage};
//!
//! # fn main() -> portcullis_lab::Result<()> {
//! let lab = Lab::up(ClusterObjects::read("fixtures/demo")?, LabOptions::default())?;
//! let web = lab.plan().frontend_address("web", &FrontendKind::ClusterIp, Family::V4, 80);
//! let tally = lab.prober(Vantage::client_on("node-1"))?.tcp_many(web.expect("web has a cluster IP"), 200);
//! println!("{:?}, source addresses {:?}", tally.by_responder, tally.sources);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

mod announce;
pub mod background;
mod cluster_objects;
mod colors;
mod daemon;
mod data_path;
mod echo_client;
mod echo_server;
mod error;
pub mod expectation;
mod lab_record;
mod link_readiness;
pub mod manifests;
mod matrix;
mod netns;
mod network;
mod observe;
pub mod plan;
mod pod_network;
mod probe;
mod probe_batch;
mod probe_report;
mod reaper;
mod run;
mod run_results;
mod running;
mod signals;
mod socket;
mod stream;
mod sync_times;
mod traffic;

pub use cluster_objects::{ClusterObjects, LabObject, ObjectRef};
pub use daemon::DaemonSpec;
pub use data_path::DataPath;
pub use echo_client::EchoClient;
pub use error::{Error, Result};
pub use expectation::{IpvsLosses, tolerating_ipvs_losses};
pub use lab_record::{LabRecord, check_name};
pub use matrix::{Matrix, MatrixCell, MatrixOptions, MatrixPeer, MatrixProbe, MatrixTable};
pub use netns::NetNs;
pub use observe::observe;
pub use plan::{ClusterPlan, EchoPort, Families, Family, Frontend, FrontendKind, PlanOptions, Protocol};
pub use pod_network::PodNetworkMode;
pub use probe::{ProbeOutcome, ProbeTally, Prober, Vantage};
pub use probe_report::{ProbeReport, ProbeRow, RowCheck};
pub use run::{RunOptions, probe, probe_with_policies, run, run_with};
pub use run_results::{Check, CheckGroup, CheckOutcome, RunResults};
pub use running::{Lab, LabOptions};
pub use traffic::{TrafficGenerator, TrafficLog, TrafficOptions, TrafficProbe};
