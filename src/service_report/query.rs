//! Queries: which Services a report shows.

use std::net::IpAddr;

use portcullis_cluster::NamespacedName;
use portcullis_cluster::service::Service;
use serde::Deserialize;

/// The Services that a report shows. All conditions must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceQuery {
    /// Only Services of this namespace.
    pub namespace: Option<String>,
    /// Only the Service with this name; requires a namespace.
    pub name: Option<String>,
    /// Only Services with this text in `namespace/name`, or with this address, port or node port.
    pub search: Option<String>,
    /// Only Services with errors or warnings.
    pub problems: bool,
    /// List endpoints.
    pub endpoints: bool,
    /// Omit this number of matching Services.
    pub offset: usize,
    /// The maximum number of Services; without it, [`MAX_ITEMS`].
    pub limit: Option<usize>,
    /// Only Services after this one (`namespace/name`).
    pub after: Option<String>,
}

/// The maximum number of Services of a page.
pub const MAX_ITEMS: usize = 1000;

impl ServiceQuery {
    /// Returns the query string of a request to the local API: `namespace=shop&problems=true`.
    pub(crate) fn to_query_string(&self) -> String {
        let ServiceQuery { namespace, name, search, problems, endpoints, offset, limit, after } = self;
        let texts = [("namespace", namespace), ("name", name), ("search", search), ("after", after)];
        let flags = [("problems", *problems), ("endpoints", *endpoints)];
        let numbers = [("offset", Some(*offset).filter(|offset| *offset > 0)), ("limit", *limit)];
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        for (key, text) in texts {
            text.iter().for_each(|text| _ = pairs.append_pair(key, text));
        }
        for (key, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
            pairs.append_pair(key, "true");
        }
        for (key, number) in numbers {
            number.iter().for_each(|number| _ = pairs.append_pair(key, &number.to_string()));
        }
        pairs.finish()
    }

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
