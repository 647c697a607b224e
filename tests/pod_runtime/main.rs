//! Containers of containerd and runc, whose network the plugin wires.
//!
//! ```text
//! node (PID, mount and network namespace): containerd ─ runc ─ pods: `portcullis pause` as the first process
//!                                          ctr ─ CNI ─► plugin: the program under test
//! ```
//! The client `ctr` calls the plugin, as the kubelet's side of containerd does: `ADD` for each pod, and `DEL` when it has ended. In
//! `sandboxes` the kubelet's side itself does.

mod cluster;
mod cri;
mod node;
mod plugin;
mod pod;
mod pods;
mod protobuf;
mod sandbox_image;
mod sandboxes;
