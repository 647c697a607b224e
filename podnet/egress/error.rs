//! Errors of egress rules.

/// Error of a change of the egress rules.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The kernel has no nf_tables.
    #[error(
        "the pod network needs nf_tables, which this kernel does not have (CONFIG_NF_TABLES_INET, CONFIG_NFT_MASQ)"
    )]
    NoTables,
    /// The kernel rejected a request.
    #[error("egress rules of the pod network: {0}")]
    Kernel(#[from] portcullis_netlink::Error),
}
