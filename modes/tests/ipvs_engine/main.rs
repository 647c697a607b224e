//! Tests of IPVS mode on a kernel in memory: after any changes and failures the kernel has the desired objects, and the order
//! of writing never exposes half a Service.

#![allow(unreachable_pub, reason = "modules of a test binary")]

mod change_cost;
mod cluster;
mod convergence;
mod drift;
mod failures;
mod kernel;
mod node;
mod rejected_objects;
mod terminations;
mod tool;
mod write_order;

#[path = "../engine/fake_kernel.rs"]
mod fake_iptables;
