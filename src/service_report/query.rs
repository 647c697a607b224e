//! Queries: which Services a report shows.

use std::net::IpAddr;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::service::Service;
use serde::{Deserialize, Serialize};

/// The Services that a report shows. All conditions must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceQuery {
    /// Only Services of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only the Service with this name; requires a namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only Services with this text in `namespace/name`, or with this address, port or node port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Only Services with errors or warnings.
    #[serde(skip_serializing_if = "is_false")]
    pub problems: bool,
    /// List endpoints.
    #[serde(skip_serializing_if = "is_false")]
    pub endpoints: bool,
    /// Omit this number of matching Services.
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: usize,
    /// The maximum number of Services; without it, [`MAX_ITEMS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only Services after this one (`namespace/name`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The maximum number of Services of a page.
pub const MAX_ITEMS: usize = 500;

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl ServiceQuery {
    /// Returns the maximum number of items.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(MAX_ITEMS).min(MAX_ITEMS)
    }

    /// Returns true if a Service matches. Unreadable Services have only a name.
    pub(super) fn matches(&self, name: &NamespacedName, service: Option<&Service>) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        is(&self.namespace, name.namespace.as_str())
            && is(&self.name, &name.name)
            && self.search.as_ref().is_none_or(|text| has_text(text.trim(), name, service))
    }

    /// Returns true if a Service comes after the last one of the page before.
    pub(super) fn is_after(&self, name: &NamespacedName) -> bool {
        let Some((namespace, last)) = self.after.as_ref().and_then(|after| after.split_once('/')) else {
            return true;
        };
        (name.namespace.as_str(), &*name.name) > (namespace, last)
    }
}

fn has_text(text: &str, name: &NamespacedName, service: Option<&Service>) -> bool {
    let in_name = || name.to_string().contains(&text.to_lowercase());
    let has_address = |service: &Service| {
        let all = service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_vips);
        text.parse::<IpAddr>().is_ok_and(|ip| all.into_iter().any(|own| *own == ip))
    };
    let has_port = |service: &Service| {
        let numbers = service.ports.iter().flat_map(|port| [Some(port.port), port.node_port]).flatten();
        text.parse::<u16>().is_ok_and(|number| numbers.into_iter().any(|own| own.get() == number))
    };
    in_name() || service.is_some_and(|service| has_address(service) || has_port(service))
}
