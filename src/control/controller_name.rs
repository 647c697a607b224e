//! The name of a controller.

/// The name of a controller, as metrics, health and the log spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ControllerName {
    /// The label in metrics, which identifies the controller.
    pub label: &'static str,
    /// The objects that it programs, in the plural.
    pub objects: &'static str,
    /// The rules that it writes.
    pub rules: &'static str,
    /// The action of Events about objects that it cannot program.
    pub event_action: &'static str,
    /// It does the work of kube-proxy, so kube-proxy's metrics and `healthCheckNodePort`s show its syncs.
    pub is_service_proxy: bool,
}

#[cfg(test)]
impl ControllerName {
    /// The controller of Services, for tests.
    pub(crate) const SERVICES: ControllerName = ControllerName {
        label: "services",
        objects: "Services",
        rules: "rules of Services",
        event_action: "SyncProxyRules",
        is_service_proxy: true,
    };

    /// The controller of policies, for tests.
    pub(crate) const POLICIES: ControllerName = ControllerName {
        label: "policies",
        objects: "policies",
        rules: "NetworkPolicy table",
        event_action: "Enforcing",
        is_service_proxy: false,
    };
}
