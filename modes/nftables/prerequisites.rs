//! The check of the kernel features that nftables mode needs, by creating them in a temporary table.

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::{
    self, Chain, DataType, DesiredTable, DynsetOp, Element, Expression, Fib, Field, Key, Register, Rule, Set,
    SetSpec, TableFamily, Verdict, delete_table,
};

/// The table in which features are tried.
pub(super) const PROBE: &str = "portcullis-probe";

/// A missing prerequisite of nftables mode.
#[derive(Debug, thiserror::Error)]
pub enum NftablesPrerequisiteError {
    /// The kernel has no nf_tables at all.
    #[error(
        "nftables mode needs nf_tables (CONFIG_NF_TABLES), which this kernel does not have; --mode=iptables works if it has xtables"
    )]
    NoTables,
    /// The kernel lacks a feature.
    #[error(
        "nftables mode needs {feature} ({since}), which this kernel rejects: {rejection}; --mode=iptables works without"
    )]
    Feature {
        /// The missing feature.
        feature: &'static str,
        /// The kernel option or version that has it.
        since: &'static str,
        /// The error of the kernel.
        rejection: portcullis_netlink::Error,
    },
    /// The kernel has no counters of set elements.
    #[error(
        "nftables.service-counters needs counters of set elements (Linux 5.7), which this kernel does not have; do not set it"
    )]
    NoElementCounters,
    /// The kernel could not be queried, for example without CAP_NET_ADMIN.
    #[error(transparent)]
    Kernel(#[from] portcullis_netlink::Error),
}

/// Adds the objects that need a feature.
type Fill = fn(&mut DesiredTable);

const FEATURES: &[(&str, &str, Fill)] = &[
    ("nf_tables tables and chains", "CONFIG_NF_TABLES_IPV4, Linux 3.13", |table| {
        table.put_chain(&"chain".into(), Chain::new(vec![Rule::new().then(Verdict::Return)]));
    }),
    ("maps with concatenated keys", "Linux 4.1", |table| {
        let key = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
        let spec = SetSpec::new(&key).with_data(&[DataType::Ipv4Addr, DataType::InetService]);
        table.put_set(&"map".into(), Set::new(spec));
    }),
    ("intervals with concatenated keys", "Linux 5.6", |table| {
        let spec = SetSpec::new(&[DataType::Ipv4Addr, DataType::InetService]).with_intervals();
        let key = |last: u8| Key::new().part(&[10, 0, 0, last]).port(80);
        table.put_set(&"ranges".into(), Set::with_elements(spec, [(key(0), Element::range_to(key(9)))]));
    }),
    ("random numbers (numgen)", "CONFIG_NFT_NUMGEN, Linux 4.9", |table| {
        let random = Field::Random { modulus: 2, offset: 1 };
        table.put_chain(&"chain".into(), Chain::new(vec![Rule::new().load(&[random], Register::FIRST)]));
    }),
    ("address types (fib)", "CONFIG_NFT_FIB_IPV4, Linux 4.10", |table| {
        let rule = Rule::new().load(&[Field::Fib(Fib::SourceType)], Register::FIRST);
        table.put_chain(&"chain".into(), Chain::new(vec![rule]));
    }),
    ("NAT and masquerading", "CONFIG_NFT_NAT and CONFIG_NFT_MASQ", |table| {
        let rule = Rule::new().push(Expression::Masquerade { random_fully: true });
        table.put_chain(&"chain".into(), Chain::new(vec![rule]));
    }),
    ("maps that rules update", "Linux 4.3", |table| {
        let spec = SetSpec {
            dynamic: true,
            timeout: Some(0),
            size: Some(16),
            ..SetSpec::new(&[DataType::Ipv4Addr]).with_data(&[DataType::Ipv4Addr])
        };
        table.put_set(&"map".into(), Set::new(spec));
        let (key, data) = (Register(0), Some(Register(1)));
        let address = Field::Source(portcullis_netlink::Family::V4);
        let write = |op, timeout| Expression::Dynset { set: "map".into(), op, key, data, timeout };
        let rule = Rule::new().load(&[address, address], key);
        let rule = rule.push(write(DynsetOp::Delete, None)).push(write(DynsetOp::Update, Some(1000)));
        table.put_chain(&"chain".into(), Chain::new(vec![rule]));
    }),
];

/// Checks every feature that the mode needs in the calling thread's network namespace. Returns the families that the
/// kernel supports.
///
/// # Errors
/// A feature or privilege is missing.
pub fn check() -> Result<Vec<Family>, NftablesPrerequisiteError> {
    let mut socket = nf_tables::open()?.ok_or(NftablesPrerequisiteError::NoTables)?;
    for (feature, since, fill) in FEATURES {
        let mut table = DesiredTable::new(TableFamily::Ip, PROBE);
        fill(&mut table);
        let tried = nf_tables::commit(&mut socket, &mut table);
        delete_table(&mut socket, TableFamily::Ip, PROBE)?;
        match tried {
            Ok(_) => {}
            Err(error) if error.errno() == Some(libc::EPERM) => return Err(error.into()),
            Err(rejection) => {
                return Err(NftablesPrerequisiteError::Feature { feature, since, rejection });
            }
        }
    }
    let mut families = vec![Family::V4];
    let mut table = DesiredTable::new(TableFamily::Ip6, PROBE);
    let tried = nf_tables::commit(&mut socket, &mut table);
    delete_table(&mut socket, TableFamily::Ip6, PROBE)?;
    match tried {
        Ok(_) => families.push(Family::V6),
        Err(error) => tracing::warn!(%error, "kernel has no nf_tables for IPv6; not serving IPv6"),
    }
    Ok(families)
}
