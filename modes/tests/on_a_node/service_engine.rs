//! Tests of the service engine: the order of its steps, and their conditions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_modes::cleanup::{CleanupResult, Takeover};
use portcullis_modes::iptables::Flavour;
use portcullis_modes::stale_flows::{FlowTable, StaleFlows};
use portcullis_modes::{
    EngineRequest, IsolatedService, IsolationCause, Mode, NodeFacts, Options, ProxyMode, ServiceEngine,
    SyncError, SyncErrorKind, SyncResult,
};
use portcullis_netlink::conntrack::{DeleteCounts, Flow};

use crate::namespace::inside;
use crate::node::{Node, saved};

/// The steps of an engine, in order.
type Log = Arc<Mutex<Vec<&'static str>>>;

/// A mode that returns given results.
struct FakeMode {
    log: Log,
    results: VecDeque<SyncResult>,
    options: Options,
    node_facts: NodeFacts,
}

impl Mode for FakeMode {
    fn proxy_mode(&self) -> ProxyMode {
        ProxyMode::Nftables
    }

    fn sync(&mut self, _: &Desired, _: &[ServiceChange]) -> Vec<SyncResult> {
        self.log.lock().unwrap().push(if saved(Flavour::Nft).contains("KUBE-SERVICES") {
            "sync with old rules"
        } else {
            "sync"
        });
        self.results.pop_front().into_iter().collect()
    }

    fn check_drift(&mut self) -> bool {
        false
    }

    fn reconfigure(&mut self, options: Options, node_facts: NodeFacts) {
        (self.options, self.node_facts) = (options, node_facts);
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn node_facts(&self) -> &NodeFacts {
        &self.node_facts
    }
}

/// An empty conntrack table.
struct FakeFlows(Log);

impl FlowTable for FakeFlows {
    fn delete_where(
        &mut self,
        _: &[portcullis_netlink::Family],
        _: &[u8],
        _: &mut dyn FnMut(&Flow) -> bool,
    ) -> portcullis_netlink::Result<DeleteCounts> {
        self.0.lock().unwrap().push("list flows");
        Ok(DeleteCounts::default())
    }
}

fn result(change: impl FnOnce(&mut SyncResult)) -> SyncResult {
    let mut result = SyncResult {
        family: Family::V4,
        is_full: false,
        duration: Duration::from_millis(1),
        written: 0,
        tables: Vec::new(),
        restored: 0,
        deferred: Vec::new(),
        isolated: Vec::new(),
        error: None,
    };
    change(&mut result);
    result
}

fn isolated(result: &mut SyncResult) {
    let service = portcullis_cluster::NamespacedName::new("default", "web");
    result.isolated = vec![IsolatedService {
        service,
        cause: IsolationCause::Rejected,
        reason: "rejected".into(),
        has_rules: true,
    }];
}

fn failed(result: &mut SyncResult) {
    result.error = Some(SyncError::new(SyncErrorKind::KernelRejected, "no memory"));
}

#[test]
fn other_modes_are_removed_after_the_first_successful_sync() {
    inside(|| {
        let node = Node::new(Flavour::Nft, "mixed");
        node.sync();
        let log = Log::default();
        let steps = || std::mem::take(&mut *log.lock().unwrap());
        let results = [result(failed), result(isolated), result(|_| ()), result(|_| ())];
        let mode = FakeMode {
            log: log.clone(),
            results: results.into(),
            options: Options { localhost_node_ports: false, ..node.options.clone() },
            node_facts: node.host.clone(),
        };
        let takeover = Takeover::new(ProxyMode::Nftables, Flavour::Nft, Duration::ZERO);
        let mut engine =
            ServiceEngine::new(Box::new(mode), takeover, StaleFlows::new(FakeFlows(log.clone())));
        let strict = EngineRequest { requires_all_services: true, ..EngineRequest::default() };

        let first = engine.sync(&node.desired, EngineRequest::default());
        assert!(first.error().is_some() && first.cleanup == CleanupResult::default());
        assert_eq!(steps(), ["sync with old rules"], "the flows wait for their rules");

        let second = engine.sync(&node.desired, strict);
        assert!(second.error().is_none() && second.cleanup == CleanupResult::default());
        assert_eq!(steps(), ["sync with old rules"], "an isolated Service may depend on the old rules");

        let third = engine.sync(&node.desired, strict);
        assert!(third.error().is_none() && !third.cleanup.removed.is_empty());
        assert!(third.cleanup.is_complete() && engine.next_removal().is_none());
        assert!(!saved(Flavour::Nft).contains("KUBE-SERVICES"));
        assert_eq!(steps(), ["sync with old rules", "list flows"]);

        let fourth = engine.sync(&node.desired, EngineRequest::default());
        assert!(fourth.is_idle() && fourth.cleanup == CleanupResult::default());
        assert_eq!(steps(), ["sync"], "no change, no listing");
    });
}
