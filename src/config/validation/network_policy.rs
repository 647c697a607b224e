//! Validation of the NetworkPolicy settings, which kube-proxy does not have.

use portcullis_podnet::PodNetworkMode;

use super::Validator;
use crate::config::validated::{DropLog, Established, NetworkPolicy, UnknownPods};

impl Validator<'_> {
    pub(super) fn network_policy(&mut self) -> Option<NetworkPolicy> {
        let given = &self.settings.network_policy;
        let (established, unknown_pods) = (given.established.as_str(), given.unknown_pods.as_str());
        let (group, rate) = (given.log_group, given.log_rate);
        let established = match established {
            "" | "keep" => Established::Keep,
            "cut" => Established::Cut,
            other => {
                self.reject("network-policy.established", format!("{other:?}"), "keep or cut");
                Established::Keep
            }
        };
        let unknown_pods = match unknown_pods {
            "" | "allow" => UnknownPods::Allow,
            "deny" => UnknownPods::Deny,
            other => {
                self.reject("network-policy.unknown-pods", format!("{other:?}"), "allow or deny");
                UnknownPods::Allow
            }
        };
        let valid_group = u16::try_from(group).unwrap_or_else(|_| {
            self.reject(
                "network-policy.log-group",
                group,
                "an NFLOG group from 1 to 65535, or 0 to disable logging",
            );
            0
        });
        let valid_rate = u32::try_from(rate).ok().filter(|rate| *rate > 0).unwrap_or_else(|| {
            self.reject("network-policy.log-rate", rate, "a number of packets greater than 0");
            1
        });
        let log = (valid_group > 0).then_some(DropLog { group: valid_group, rate: valid_rate });
        let audit = self.settings.network_policy.audit;
        let pod_network = PodNetworkMode::from_name(&self.settings.pod_network.mode);
        self.settings.network_policy.enabled.then_some(NetworkPolicy {
            established,
            audit,
            unknown_pods,
            log,
            has_overlay: pod_network.is_some_and(PodNetworkMode::has_overlay),
        })
    }
}
