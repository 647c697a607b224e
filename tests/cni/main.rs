//! The binary as a CNI plugin, run as a container runtime runs it: in network namespaces that stand for a node, its pods and a host
//! outside, with packets between them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node;

mod by_hand;
mod chain;
mod damage;
mod interruption;
mod lifecycle;
mod loopback;
mod oldest_kernel;
mod packets;
mod source_check;
mod versions;
