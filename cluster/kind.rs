//! The kinds of objects in use.

use std::fmt;

/// Declares the kinds, a row each: the variant, its `kind`, its `apiVersion`, its resource in API paths, and whether its
/// objects are namespaced.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident: $kind:literal, $api_version:literal, $plural:literal, $namespaced:literal;)*) => {
        /// The kinds of objects in use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: [Kind; [$($plural),*].len()] = [$(Kind::$variant),*];

            const fn row(self) -> Row {
                match self {
                    $(Kind::$variant => Row {
                        kind: $kind,
                        api_version: $api_version,
                        plural: $plural,
                        namespaced: $namespaced,
                    },)*
                }
            }
        }
    };
}

kinds! {
    /// `v1` Node.
    Node: "Node", "v1", "nodes", false;
    /// `v1` Service.
    Service: "Service", "v1", "services", true;
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice: "EndpointSlice", "discovery.k8s.io/v1", "endpointslices", true;
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr: "ServiceCIDR", "networking.k8s.io/v1", "servicecidrs", false;
    /// `v1` Namespace.
    Namespace: "Namespace", "v1", "namespaces", false;
    /// `v1` Pod.
    Pod: "Pod", "v1", "pods", true;
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy: "NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", true;
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy: "ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2", "clusternetworkpolicies", false;
}

/// The row of a kind in the table.
struct Row {
    kind: &'static str,
    api_version: &'static str,
    plural: &'static str,
    namespaced: bool,
}

impl Kind {
    /// Returns the kind of an `apiVersion` and `kind`; `None` for kinds and versions that are not in use.
    pub fn from_api(api_version: &str, kind: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.api_version() == api_version && k.as_str() == kind)
    }

    /// Returns its `kind`.
    pub fn as_str(self) -> &'static str {
        self.row().kind
    }

    /// Returns its `apiVersion`.
    pub fn api_version(self) -> &'static str {
        self.row().api_version
    }

    /// Returns the name of its resource in API paths.
    pub fn plural(self) -> &'static str {
        self.row().plural
    }

    /// Returns true if its objects are namespaced.
    pub fn namespaced(self) -> bool {
        self.row().namespaced
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
