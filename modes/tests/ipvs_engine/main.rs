//! The IPVS engine on a kernel in memory: whatever happens, in whatever order, in the end the kernel holds what is
//! desired, and on the way there no packet meets half a Service.

#![allow(unreachable_pub, reason = "modules of a test binary")]

mod cluster;
mod drift;
mod faults;
mod follows;
mod hot_path;
mod kernel;
mod node;
mod order;
mod terminations;
mod tool;

#[path = "../engine/fake_kernel.rs"]
mod fake_iptables;
