//! ServiceCIDRs: the blocks from which ClusterIPs are allocated (KEP-1880).

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::parse_cidr;
use crate::labels::null_is_empty;
use crate::metadata::Metadata;
use crate::name::NamespacedName;
use crate::problem::Problem;

/// A ServiceCIDR.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceCidr {
    /// Its name (the namespace is empty).
    pub key: NamespacedName,
    /// Its blocks, at most one per family.
    pub cidrs: Box<[IpNet]>,
}

#[derive(Deserialize)]
pub(crate) struct RawServiceCidr {
    metadata: Metadata,
    #[serde(default, deserialize_with = "null_is_empty")]
    spec: Spec,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default, deserialize_with = "null_is_empty")]
    cidrs: Vec<String>,
}

impl RawServiceCidr {
    pub(crate) fn convert(self, problems: &mut Vec<Problem>) -> ServiceCidr {
        let cidrs = self.spec.cidrs.iter().enumerate().filter_map(|(i, text)| {
            let cidr = parse_cidr(text);
            if cidr.is_none() {
                problems.push(Problem::new(
                    format!("spec.cidrs[{i}]"),
                    text,
                    "an address block such as 10.96.0.0/12",
                ));
            }
            cidr
        });
        ServiceCidr { cidrs: cidrs.collect(), key: NamespacedName::new("", &self.metadata.name) }
    }
}
