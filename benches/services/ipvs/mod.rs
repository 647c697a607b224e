//! IPVS mode beside a bare netlink loop.
//!
//! Every program that writes IPVS objects pays for the kernel's work. So each figure is shown beside a loop that only
//! sends the same objects, which are read back from the kernel after a first run of the daemon that is not measured.
//! There are few iptables rules at any size; the bare tool restores them, one file per family. Kernels often lack IPVS,
//! so each number of Services has a user-mode Linux machine of its own. It has one CPU, and its system calls are slow:
//! only figures of one machine are comparable.
//!
//! ```text
//! namespace A: API server (HTTP, this process) ─► the real daemon ─► ip_vs, ipset, kube-ipvs0; rules
//! namespace B:                   recorded objects ─────────────────► ip_vs, ipset, kube-ipvs0; rules
//! ```

mod bare;
mod machine;
mod objects;
mod rules;
mod scenario;

pub(crate) use machine::measure;
pub(crate) use scenario::Scenario;
