//! The batches of a bulk write with the nft tool: Services, or ports of a large Service, for single restores.

use std::ops::Range;

use portcullis_cluster::desired::ServicePort;

use super::bulk::{Execution, RestoreParts};
use super::chain::SharedChain;
use super::family_proxier::IptablesFamilyProxier;
use super::plan::{PlannedService, max_lines};
use super::script::NFT_LINES;

impl IptablesFamilyProxier {
    /// Divides the Services into batches for single restores with the nft tool. A Service that is too large for one is
    /// divided by its ports, each of which has chains of its own.
    pub(super) fn batches(&self, execution: &Execution<'_>) -> Vec<RestoreParts<'static>> {
        let services = &execution.plan.services;
        let (mut batches, mut start, mut lines) = (Vec::new(), 0, 0);
        let part = |services, ports| RestoreParts { services, ports, ..RestoreParts::default() };
        for (i, service) in services.iter().enumerate() {
            let size = self.estimated_lines(execution, service);
            if size > NFT_LINES {
                batches.push(part((start..i).collect(), None));
                let ports = service.ports.as_deref().unwrap_or_default();
                batches.extend(self.divide(ports, service.large).map(|ports| part(vec![i], Some(ports))));
                (start, lines) = (i + 1, 0);
                continue;
            }
            lines += size;
            if lines >= NFT_LINES || i + 1 == services.len() {
                batches.push(part((start..=i).collect(), None));
                (start, lines) = (i + 1, 0);
            }
        }
        batches.push(part((start..services.len()).collect(), None));
        batches.retain(|batch| !batch.services.is_empty());
        batches
    }

    /// Estimates the lines of a restore for a Service.
    fn estimated_lines(&self, execution: &Execution<'_>, service: &PlannedService) -> usize {
        let shared = service.rules.filter + service.rules.nat;
        if self.checks_shared_rules(execution) { service.max_lines.max(shared) } else { service.max_lines }
    }

    /// Divides a Service's ports into groups for single restores with the nft tool.
    fn divide(&self, ports: &[ServicePort], large: bool) -> impl Iterator<Item = Range<usize>> {
        let (mut groups, mut start, mut lines) = (Vec::new(), 0, 0);
        for (i, port) in ports.iter().enumerate() {
            let rules = self.renderer.service(std::slice::from_ref(port), large);
            let shared = SharedChain::ALL.into_iter().map(|chain| rules.shared(chain).count());
            lines += max_lines(&rules) + shared.sum::<usize>();
            if lines >= NFT_LINES || i + 1 == ports.len() {
                groups.push(start..i + 1);
                (start, lines) = (i + 1, 0);
            }
        }
        groups.into_iter()
    }
}
