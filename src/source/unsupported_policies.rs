//! Warnings about kinds of network policies that are not enforced: an operator who applied such an object expects that it
//! restricts access.

/// The group of ClusterNetworkPolicy, and of the kinds that it replaced.
const GROUP: &str = "policy.networking.k8s.io";

/// Returns a warning about the objects of a kind if they are network policies that are not enforced; `None` for all other
/// kinds.
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

/// The same for `apiVersion` and `kind` with a space between.
pub(crate) fn warning_of(named: &str) -> Option<String> {
    let (api_version, kind) = named.split_once(' ')?;
    warning(api_version, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_not_enforced_have_a_warning() {
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
            let warning = warning_of(named);
            match expected {
                Some(expected) => {
                    let warning = warning.expect(named);
                    assert!(
                        warning.contains(" are not enforced: ") && warning.contains(expected),
                        "{named}: {warning}"
                    );
                }
                None => assert_eq!(warning, None, "{named}"),
            }
        }
    }
}
