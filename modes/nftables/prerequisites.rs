//! What the mode needs of the kernel, tried out at the start in a table of its own that is gone at once.

use portcullis_cluster::Family;
use portcullis_netlink::nf_tables::{
    self, Chain, DataType, DesiredTable, DynsetOp, Element, Expression, Fib, Field, Key, Register, Rule, Set,
    SetSpec, TableFamily, Verdict, delete_table,
};

const PROBE: &str = "portcullis-probe";

/// Why the mode cannot serve here.
#[derive(Debug, thiserror::Error)]
pub enum NftablesPrerequisiteError {
    /// The kernel has no nf_tables at all.
    #[error(
        "nftables mode needs nf_tables (CONFIG_NF_TABLES), which this kernel does not have; --mode=iptables works where it has xtables"
    )]
    NoTables,
    /// The kernel lacks a feature.
    #[error(
        "nftables mode needs {feature} ({since}), which this kernel refuses: {refusal}; --mode=iptables does without"
    )]
    Feature {
        /// What it lacks.
        feature: &'static str,
        /// Where it comes from.
        since: &'static str,
        /// What the kernel said.
        refusal: portcullis_netlink::Error,
    },
    /// There is no privilege.
    #[error(transparent)]
    Kernel(#[from] portcullis_netlink::Error),
}

type Fill = fn(&mut DesiredTable);

const FEATURES: &[(&str, &str, Fill)] = &[
    ("tables and chains of nf_tables", "CONFIG_NF_TABLES_IPV4, Linux 3.13", |table| {
        table.put_chain(&"chain".into(), Chain::new(vec![Rule::new().then(Verdict::Return)]));
    }),
    ("maps with keys of several parts", "Linux 4.1", |table| {
        let key = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
        let spec = SetSpec::new(&key).with_data(&[DataType::Ipv4Addr, DataType::InetService]);
        table.put_set(&"map".into(), Set::new(spec));
    }),
    ("ranges with keys of several parts", "Linux 5.6", |table| {
        let spec = SetSpec::new(&[DataType::Ipv4Addr, DataType::InetService]).with_intervals();
        let key = |last: u8| Key::new().part(&[10, 0, 0, last]).port(80);
        table.put_set(&"ranges".into(), Set::with_elements(spec, [(key(0), Element::range_to(key(9)))]));
    }),
    ("random numbers", "CONFIG_NFT_NUMGEN, Linux 4.9", |table| {
        let random = Field::Random { modulus: 2, offset: 1 };
        table.put_chain(&"chain".into(), Chain::new(vec![Rule::new().load(&[random], Register::FIRST)]));
    }),
    ("address types", "CONFIG_NFT_FIB_IPV4, Linux 4.10", |table| {
        let rule = Rule::new().load(&[Field::Fib(Fib::SourceType)], Register::FIRST);
        table.put_chain(&"chain".into(), Chain::new(vec![rule]));
    }),
    ("translation of addresses", "CONFIG_NFT_NAT and CONFIG_NFT_MASQ", |table| {
        let rule = Rule::new().push(Expression::Masquerade { random_fully: true });
        table.put_chain(&"chain".into(), Chain::new(vec![rule]));
    }),
    ("maps that rules write to", "Linux 4.3", |table| {
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

/// Tries everything out that the mode needs, in the calling thread's network namespace. Gives the families that the
/// kernel can serve.
///
/// # Errors
/// The kernel lacks something, or there is no privilege.
pub fn check() -> Result<Vec<Family>, NftablesPrerequisiteError> {
    let mut socket = nf_tables::open()?.ok_or(NftablesPrerequisiteError::NoTables)?;
    for (feature, since, fill) in FEATURES {
        let mut table = DesiredTable::new(TableFamily::Ip, PROBE);
        fill(&mut table);
        let tried = table.commit(&mut socket);
        delete_table(&mut socket, TableFamily::Ip, PROBE)?;
        match tried {
            Ok(_) => {}
            Err(error) if error.errno() == Some(libc::EPERM) => return Err(error.into()),
            Err(refusal) => return Err(NftablesPrerequisiteError::Feature { feature, since, refusal }),
        }
    }
    let mut families = vec![Family::V4];
    let mut table = DesiredTable::new(TableFamily::Ip6, PROBE);
    let tried = table.commit(&mut socket);
    delete_table(&mut socket, TableFamily::Ip6, PROBE)?;
    match tried {
        Ok(_) => families.push(Family::V6),
        Err(error) => tracing::warn!(%error, "no nf_tables for IPv6; it is not served"),
    }
    Ok(families)
}
