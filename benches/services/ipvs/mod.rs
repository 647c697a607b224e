//! IPVS mode beside a bare netlink loop.
//!
//! Everybody who writes IPVS pays for the kernel's part: the messages, and what it does at each. So each figure
//! stands beside a loop that has the very same objects at hand, in order, and only sends them. They are read back
//! from the kernel after a first run of the daemon, which is not measured. The rules of iptables are few, whatever the
//! size, and the bare tool restores them, one file a family. Kernels often have no IPVS, so each
//! number of Services has a machine of user-mode Linux for itself. It has one processor, and system calls are
//! slow there: only what ran in one machine compares.
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
