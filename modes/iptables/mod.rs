//! iptables mode: the rules of kube-proxy v1.36, name for name.

mod base_rules;
mod chain;
mod options;
mod rule;
mod rule_set;
mod service_rules;

pub use chain::{ChainName, Table};
pub use options::{
    DetectLocal, Host, LARGE_CLUSTER_ENDPOINTS, NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS,
    NodePortAddresses, Options,
};
pub use rule_set::RuleSet;
