//! Documents with a value in each field, for tests.

use jiff::Timestamp;

use super::*;
use crate::service_report::{
    Balancing, EndpointCounts, EndpointItem, Finding, FrontendItem, FrontendKindName, Reason, ServiceItem,
    ServiceReport, ServiceStatus, Severity,
};

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_796_032_800 + seconds).expect("a time")
}

fn at(seconds: i64) -> PastTime {
    PastTime { time: time(-seconds), age_seconds: seconds as f64 }
}

fn entry(number: u64, age: i64, r#type: EntryType, text: &str) -> TimelineEntry {
    TimelineEntry {
        number,
        time: time(-age),
        r#type,
        component: "services".into(),
        rules: Some("IPv4".into()),
        text: text.into(),
        trigger: Some("change".into()),
        duration_seconds: Some(0.0031),
        restored: Some(0),
        process: None,
        object: None,
        error: None,
    }
}

/// Returns a timeline.
pub(crate) fn timeline() -> TimelineDocument {
    TimelineDocument {
        meta: TypeMeta::new("Timeline"),
        time: time(0),
        discarded: 3,
        omitted: 1,
        entries: vec![
            entry(7, 9, EntryType::Sync, "2 changed objects, 3.1ms"),
            TimelineEntry {
                restored: Some(2),
                process: Some("nft (process 4711)".into()),
                ..entry(
                    8,
                    5,
                    EntryType::Drift,
                    "external change by nft (process 4711), 1.0ms; restored 2 objects that nft (process 4711) had changed",
                )
            },
        ],
    }
}

/// Returns policies.
pub(crate) fn policies() -> PoliciesDocument {
    let policy = "NetworkPolicy shop/web".to_owned();
    let pod =
        PodPolicies { pod: "shop/web-1".into(), ingress: vec![policy.clone()], egress: vec![policy.clone()] };
    let dropped =
        DroppedPackets { policies: policy, direction: Some("ingress".into()), packets: 17, bytes: 1020 };
    PoliciesDocument {
        meta: TypeMeta::new("Policies"),
        time: time(0),
        enforced: true,
        audit: false,
        pods: LimitedList::new([pod], 1000),
        drops: Some(LimitedList::new([dropped], 1000)),
    }
}

/// Returns a status with all kinds of problems.
pub(crate) fn status() -> StatusDocument {
    let rejected = "Service shop/api: kernel rejected an element of map service-ips: File exists";
    StatusDocument {
        meta: TypeMeta::new("Status"),
        time: time(0),
        healthy: false,
        live: false,
        node_eligible: false,
        problems: vec![
            Problem {
                text: "IPv6: the last sync failed at 2026-11-30T10:00:00Z: no".into(),
                fails: FailedCheck::HealthzAndLivez,
            },
            Problem {
                text: "Services: 1 of 40 Services are isolated, as the kernel or its tool rejects their rules; each keeps the last rules that were accepted: shop/api".into(),
                fails: FailedCheck::Nothing,
            },
        ],
        event_loop: EventLoopStatus { responded: true, error: None, last_report: Some(at(1)) },
        program: ProgramStatus {
            version: "0.1.0".into(),
            commit: Some("0123456789ab".into()),
            kube_proxy_version: "v1.36.2".into(),
            pid: 4242,
            started: time(-11_040),
            uptime_seconds: 11_040.0,
        },
        node: NodeStatus {
            name: "node-1".into(),
            mode: "nftables".into(),
            families: vec!["IPv4".into(), "IPv6".into()],
            source: "API server".into(),
        },
        rules: vec![
            RulesStatus {
                controller: "services".into(),
                rules: "IPv4".into(),
                last_success: Some(at(9)),
                failure: None,
                pending_since: Some(at(2)),
                held_back: false,
                long_sync: Some("a sync has been running for 5 s".into()),
                contention: None,
            },
            RulesStatus {
                controller: "services".into(),
                rules: "IPv6".into(),
                last_success: None,
                failure: Some(FailureStatus { at: at(20), error: "no".into() }),
                pending_since: None,
                held_back: true,
                long_sync: None,
                contention: Some("restored 40 times in 9s after changes by rival (process 7)".into()),
            },
        ],
        services: Some(ServicesStatus {
            services: 40,
            ports: 80,
            frontends: 100,
            endpoints: 240,
            unserved: LimitedList::new(
                [UnservedStatus {
                    service: "shop/web".into(),
                    frontend: "192.0.2.1:80/tcp".into(),
                    shadowed_by: Some("shop/old".into()),
                    text: "external IP 192.0.2.1:80/tcp is not served: it belongs to Service shop/old".into(),
                }],
                100,
            ),
            too_large: LimitedList::new(["shop/huge".to_owned()], 100),
        }),
        policies: Some(PoliciesStatus {
            audit: false,
            policies: Some(12),
            pods: Some(30),
            isolated_pods: Some(20),
            drops: Some(DropsStatus { packets: 1234, recent_packets: 17, recent_seconds: 300.0 }),
        }),
        pod_network: Some(pod_network()),
        isolated: LimitedList {
            count: 7,
            omitted: 6,
            items: vec![IsolatedStatus {
                kind: "Service".into(),
                name: "shop/api".into(),
                rules: "IPv4".into(),
                cause: "rejected".into(),
                message: rejected.into(),
                has_rules: Some(false),
            }],
        },
        recent_syncs: timeline().entries,
        recent_drift: timeline().entries.split_off(1),
        sources: vec![
            source("Service", None),
            source("EndpointSlice", Some("connection refused (os error 111)")),
        ],
        conntrack: Some(ConntrackStatus { count: 1311, max: 262_144 }),
        other_proxies: vec![OtherProxy {
            address: "127.0.0.1:10249".parse().expect("an address"),
            name: "kube-proxy".into(),
            mode: Some("iptables".into()),
        }],
        dropping_chains: Some(LimitedList::new(
            [DroppingChainStatus {
                family: "ip".into(),
                table: "filter".into(),
                chain: "FORWARD".into(),
                hook: Some("forward".into()),
                priority: 0,
                legacy: true,
            }],
            100,
        )),
        omitted: OmittedStatus { events: 3, log_lines: 0, dropped_log_lines: 2 },
    }
}

/// Returns a pod network with a node whose pods cannot be reached.
pub(crate) fn pod_network() -> PodNetworkStatus {
    PodNetworkStatus {
        mode: "cross-subnet".into(),
        wiring: "ptp".into(),
        masquerade: true,
        ready: Some(false),
        reason: Some("the Node has no pod CIDRs (spec.podCIDRs)".into()),
        mtu: Some(1450),
        pod_cidrs: vec!["10.244.1.0/24".into(), "fd00:10:244:1::/64".into()],
        addresses: Some(vec![
            PodAddressesStatus { pod_cidr: "10.244.1.0/24".into(), held: 30, other_plugin: 2, free: 221 },
            PodAddressesStatus { pod_cidr: "fd00:10:244:1::/64".into(), held: 1, other_plugin: 0, free: u64::MAX - 3 },
        ]),
        nodes: Some(40),
        unreachable_nodes: LimitedList::new(
            [UnreachableNodeStatus {
                node: "node-7".into(),
                reasons: vec!["conflict".into()],
                text: "pod CIDR 10.244.2.0/24 overlaps with 10.244.2.0/24 of node node-2, which is older and keeps it".into(),
            }],
            100,
        ),
    }
}

fn source(kind: &str, error: Option<&str>) -> SourceStatus {
    SourceStatus {
        kind: kind.into(),
        listed: true,
        unserved: false,
        last_contact_age_seconds: Some(2.5),
        error: error.map(str::to_owned),
        failures: 4,
        lists: 1,
        unreadable: 1,
    }
}

/// A Service report with an item of each list.
pub(in crate::observe::local_api) fn services() -> ServiceReport {
    ServiceReport {
        api_version: API_VERSION.to_owned(),
        kind: "ServiceReport".to_owned(),
        node: "node-1".to_owned(),
        mode: "nftables".to_owned(),
        total: 1,
        offset: 0,
        next: None,
        items: vec![ServiceItem {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            service_type: Some("ClusterIP".to_owned()),
            status: ServiceStatus::NotServing,
            reasons: vec![Reason::NoReadyEndpoints],
            session_affinity_seconds: Some(10_800),
            balancing: Some(Balancing { method: "random".to_owned(), is_even: true }),
            frontends: vec![FrontendItem {
                port_name: "http".to_owned(),
                kind: FrontendKindName::ClusterIp,
                address: Some([10, 96, 0, 12].into()),
                port: 80,
                protocol: "tcp".to_owned(),
                family: "IPv4".to_owned(),
                traffic_policy: "Cluster".to_owned(),
                endpoints: 0,
                source_ranges: Some(vec!["192.0.2.0/24".to_owned()]),
                answers: false,
                shadowed_by: None,
            }],
            frontend_count: 1,
            endpoint_counts: vec![EndpointCounts {
                family: "IPv4".to_owned(),
                total: 1,
                ready: 0,
                terminating: 0,
                local: 1,
            }],
            endpoints: Some(vec![EndpointItem {
                port_name: "http".to_owned(),
                protocol: "tcp".to_owned(),
                address: [10, 244, 1, 31].into(),
                port: 8080,
                pod: Some("shop/web-1".to_owned()),
                node: Some("node-1".to_owned()),
                is_local: true,
                ready: false,
                serving: false,
                terminating: false,
                cluster_share_percent: Some(0.0),
                local_share_percent: None,
            }]),
            findings: vec![Finding {
                severity: Severity::Error,
                reason: Reason::NoReadyEndpoints,
                message: "shop/web has one endpoint, which is not ready".to_owned(),
                hint: Some("check the readiness of that pod".to_owned()),
            }],
            omitted_findings: 0,
        }],
        notes: vec!["1 EndpointSlices could not be read, so endpoints may be missing".to_owned()],
    }
}
