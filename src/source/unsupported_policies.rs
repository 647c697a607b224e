//! Kinds of network policies that are not enforced, which deserve more than a line about kinds without a use: an
//! operator who applied such an object expects that it restricts access.

/// The group of ClusterNetworkPolicy, and of the kinds that it replaced.
const GROUP: &str = "policy.networking.k8s.io";

/// What to say of objects of a kind that is not read, by its `apiVersion` and `kind`, where they are network policies;
/// `None` for all other kinds.
pub(crate) fn warning(api_version: &str, kind: &str) -> Option<String> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let instead = match (group, kind) {
        (GROUP, "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy") => {
            "the kind was superseded by ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2, tiers Admin and \
             Baseline); convert them"
        }
        (GROUP, "ClusterNetworkPolicy") => "expected apiVersion policy.networking.k8s.io/v1alpha2",
        ("networking.k8s.io" | "extensions", "NetworkPolicy") => "expected apiVersion networking.k8s.io/v1",
        (_, kind) if kind.ends_with("NetworkPolicy") => {
            "only NetworkPolicy (networking.k8s.io/v1) and ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) \
             are enforced"
        }
        _ => return None,
    };
    Some(format!("{kind} objects ({api_version}) are not enforced: {instead}"))
}

/// The same for a kind as the manifests name it, `apiVersion` and `kind` with a space between.
pub(crate) fn warning_of(named: &str) -> Option<String> {
    let (api_version, kind) = named.split_once(' ')?;
    warning(api_version, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_that_are_not_enforced_are_named() {
        let rows = [
            (
                "policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy",
                Some("superseded by ClusterNetworkPolicy"),
            ),
            (
                "policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy",
                Some("superseded by ClusterNetworkPolicy"),
            ),
            (
                "policy.networking.k8s.io/v1 ClusterNetworkPolicy",
                Some("expected apiVersion policy.networking.k8s.io/v1alpha2"),
            ),
            ("extensions/v1beta1 NetworkPolicy", Some("expected apiVersion networking.k8s.io/v1")),
            ("cilium.io/v2 CiliumNetworkPolicy", Some("only NetworkPolicy")),
            ("crd.projectcalico.org/v1 GlobalNetworkPolicy", Some("only NetworkPolicy")),
            ("apps/v1 Deployment", None),
            ("nonsense", None),
        ];
        for (named, expected) in rows {
            let words = warning_of(named);
            match expected {
                Some(expected) => {
                    let words = words.expect(named);
                    assert!(
                        words.contains(" are not enforced: ") && words.contains(expected),
                        "{named}: {words}"
                    );
                }
                None => assert_eq!(words, None, "{named}"),
            }
        }
    }
}
