//! The targets, a file for each family of inputs.

pub(crate) mod api_server;
pub(crate) mod cni_requests;
pub(crate) mod config;
pub(crate) mod conntrack;
mod fake_nf_tables;
pub(crate) mod http_requests;
mod inert_options;
mod input;
pub(crate) mod ip_vs;
pub(crate) mod ipset;
pub(crate) mod iptables_save;
pub(crate) mod manifests;
pub(crate) mod nf_tables;
pub(crate) mod objects;
pub(crate) mod packet_log;
#[cfg(test)]
mod recordings;
mod replay;
pub(crate) mod responses;
pub(crate) mod route;
mod sample_cluster;
pub(crate) mod tampered_table;
