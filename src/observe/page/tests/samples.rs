//! Documents for tests.

use serde_json::{Value, json};

use crate::observe::local_api::documents::{StatusDocument, TimelineDocument};
use crate::service_report::ServiceReport;

/// A name that would run as a script if a page did not escape it, and that ends attributes.
pub(super) const HOSTILE: &str =
    "<script>alert(\"x\")</script>'&amp;--><img src=x onerror=alert(1)>\" onload=\"x";

/// The status of a healthy node.
pub(super) fn healthy() -> Value {
    let sync = json!({
        "number": 7, "time": "2026-11-30T10:00:01.25Z", "type": "sync", "component": "services", "rules": "IPv4",
        "text": "synced 1 changed Service", "trigger": "change", "durationSeconds": 0.0021, "restored": 0,
        "process": null, "object": null, "error": null
    });
    json!({
        "apiVersion": "portcullis.io/v1", "kind": "Status", "time": "2026-11-30T10:00:05Z",
        "healthy": true, "live": true, "nodeEligible": true, "problems": [],
        "eventLoop": {"responded": true, "error": null, "lastReport": {"time": "2026-11-30T10:00:04Z", "ageSeconds": 1.0}},
        "program": {
            "version": "0.1.0", "commit": "0123abc", "kubeProxyVersion": "v1.36.2", "pid": 4321,
            "started": "2026-11-29T08:00:00Z", "uptimeSeconds": 93605.0
        },
        "node": {"name": "node-a", "mode": "nftables", "families": ["IPv4", "IPv6"], "source": "API server"},
        "rules": [{
            "controller": "services", "rules": "IPv4", "lastSuccess": {"time": "2026-11-30T10:00:01Z", "ageSeconds": 4.0},
            "failure": null, "pendingSince": null, "heldBack": false, "longSync": null, "contention": null
        }],
        "services": {
            "services": 10000, "ports": 12000, "frontends": 21000, "endpoints": 100000,
            "unserved": {"count": 0, "omitted": 0, "items": []}, "tooLarge": {"count": 0, "omitted": 0, "items": []}
        },
        "policies": {
            "audit": false, "policies": 12, "pods": 30, "isolatedPods": 8,
            "drops": {"packets": 5120, "recentPackets": 14, "recentSeconds": 300.0}
        },
        "podNetwork": {
            "mode": "vxlan", "wiring": "ptp", "masquerade": true, "ready": true, "reason": null, "mtu": 1450,
            "podCIDRs": ["10.244.1.0/24"], "nodes": 3,
            "addresses": [{"podCIDR": "10.244.1.0/24", "held": 30, "otherPlugin": 0, "free": 223}],
            "unreachableNodes": {"count": 0, "omitted": 0, "items": []}
        },
        "isolated": {"count": 0, "omitted": 0, "items": []},
        "recentSyncs": [sync], "recentDrift": [],
        "sources": [{
            "kind": "Service", "listed": true, "unserved": false, "lastContactAgeSeconds": 3.5, "error": null,
            "failures": 0, "lists": 1, "unreadable": 0
        }],
        "conntrack": {"count": 1834, "max": 262144}, "otherProxies": [], "droppingChains": {"count": 0, "omitted": 0, "items": []},
        "omitted": {"events": 0, "logLines": 0, "droppedLogLines": 0}
    })
}

/// The status of a node with every kind of problem.
pub(super) fn broken() -> Value {
    let mut status = healthy();
    let drift = json!({
        "number": 9, "time": "2026-11-30T10:00:03Z", "type": "drift", "component": "services", "rules": "IPv4",
        "text": "restored 3 chains that iptables (pid 99) had changed", "trigger": "externalChange",
        "durationSeconds": 1.5, "restored": 3, "process": "iptables", "object": null, "error": null
    });
    status["healthy"] = false.into();
    status["problems"] = json!([
        {"text": "IPv4: the last sync failed", "fails": "healthz"},
        {"text": "Services: 1 Service is isolated", "fails": "nothing"}
    ]);
    status["rules"][0]["failure"] =
        json!({"at": {"time": "2026-11-30T10:00:02Z", "ageSeconds": 3.0}, "error": "no memory (ENOMEM)"});
    status["isolated"] = json!({"count": 3, "omitted": 2, "items": [{
        "kind": "Service", "name": "shop/web", "rules": "IPv4", "cause": "rejected",
        "message": "the kernel rejected an element of service-ips (EEXIST)"
    }]});
    status["podNetwork"]["ready"] = false.into();
    status["podNetwork"]["reason"] = "the Node has no pod CIDRs".into();
    status["podNetwork"]["addresses"] = json!([
        {"podCIDR": "10.244.1.0/24", "held": 240, "otherPlugin": 13, "free": 0},
        {"podCIDR": "fd00:10:244:1::/64", "held": 1, "otherPlugin": 0, "free": u64::MAX}
    ]);
    status["podNetwork"]["unreachableNodes"] = json!({"count": 3, "omitted": 2, "items": [
        {"node": "node-b", "reasons": ["conflict"], "text": "pod CIDR 10.244.2.0/24 overlaps"}
    ]});
    status["recentDrift"] = json!([drift]);
    status["sources"][0]["error"] = "connection refused".into();
    status["otherProxies"] =
        json!([{"address": "127.0.0.1:10249", "name": "kube-proxy", "mode": "iptables"}]);
    status["droppingChains"] = json!({"count": 2, "omitted": 1, "items": [
        {"family": "ip", "table": "filter", "chain": "FORWARD", "hook": "forward", "priority": 0, "legacy": true}
    ]});
    status["omitted"] = json!({"events": 3, "logLines": 2, "droppedLogLines": 1});
    status
}

/// A timeline with an entry of each type.
pub(super) fn timeline() -> Value {
    let types = [
        "started",
        "sync",
        "syncFailed",
        "drift",
        "isolated",
        "noLongerIsolated",
        "sourceFailed",
        "sourceRecovered",
        "relisted",
    ];
    let entry = |(number, entry): (usize, &str)| {
        json!({
            "number": number + 1, "time": "2026-11-30T10:00:01Z", "type": entry, "component": "services",
            "rules": "IPv4", "text": format!("what {entry} means"), "trigger": "externalChange",
            "durationSeconds": 0.5, "restored": null, "process": null, "object": "Service shop/web", "error": "why"
        })
    };
    let entries: Vec<Value> = types.into_iter().enumerate().map(entry).collect();
    json!({
        "apiVersion": "portcullis.io/v1", "kind": "Timeline", "time": "2026-11-30T10:00:05Z", "discarded": 4,
        "omitted": 2, "entries": entries
    })
}

/// A report of three Services: one that serves, one with restrictions and one that does not answer.
pub(super) fn report() -> Value {
    let frontend = |kind: &str, address: Value, answers: bool| {
        json!({
            "portName": "http", "kind": kind, "address": address, "port": 80, "protocol": "tcp", "family": "IPv4",
            "trafficPolicy": "Cluster", "endpoints": 2, "sourceRanges": ["192.0.2.0/24"], "answers": answers,
            "shadowedBy": null
        })
    };
    let endpoint = |ready: bool, terminating: bool| {
        json!({
            "portName": "http", "protocol": "tcp", "address": "10.0.0.7", "port": 8080, "pod": "shop/web-1",
            "node": "node-a", "isLocal": true, "ready": ready, "serving": ready, "terminating": terminating,
            "clusterSharePercent": 50.0, "localSharePercent": 100.0
        })
    };
    let service = |name: &str, status: &str, findings: Value| {
        json!({
            "namespace": "shop", "name": name, "type": "NodePort", "status": status, "reasons": [],
            "sessionAffinitySeconds": 10800, "balancing": {"method": "random", "isEven": true},
            "frontends": [
                frontend("clusterIP", "10.96.0.1".into(), status != "notServing"),
                frontend("nodePort", Value::Null, status != "notServing")
            ],
            "frontendCount": 7,
            "endpointCounts": [{"family": "IPv4", "total": 2, "ready": 1, "terminating": 1, "local": 1}],
            "endpoints": [endpoint(true, false), endpoint(false, true), endpoint(false, false)],
            "findings": findings,
            "omittedFindings": if status == "degraded" { 3 } else { 0 }
        })
    };
    let finding = |severity: &str, reason: &str, message: &str| json!({"severity": severity, "reason": reason, "message": message, "hint": "check its pods"});
    let warning = finding("warning", "Isolated", "port http has no endpoint on this node");
    let error = finding(
        "error",
        "Isolated",
        "the kernel rejects its rules (EEXIST); the last accepted ones are kept",
    );
    json!({
        "apiVersion": "portcullis.io/v1", "kind": "ServiceReport", "node": "node-a", "mode": "nftables",
        "total": 3, "offset": 0, "notes": ["a note"],
        "items": [
            service("db", "serving", json!([])),
            service("search", "degraded", json!([warning, warning])),
            service("web", "notServing", json!([error])),
        ]
    })
}

/// Replaces every text of a document except names of variants, times and addresses.
pub(super) fn with_hostile_names(mut document: Value) -> Value {
    const KEPT: [&str; 14] = [
        "type",
        "fails",
        "status",
        "severity",
        "reason",
        "kind",
        "time",
        "started",
        "address",
        "lastReport",
        "cause",
        "family",
        "trigger",
        "apiVersion",
    ];
    match &mut document {
        Value::String(text) => HOSTILE.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| *item = with_hostile_names(item.take())),
        Value::Object(fields) => {
            for (_, value) in
                fields.iter_mut().filter(|(key, value)| !KEPT.contains(&key.as_str()) || !value.is_string())
            {
                *value = with_hostile_names(value.take());
            }
        }
        _ => {}
    }
    document
}

/// Parses a document.
pub(super) fn status(value: Value) -> StatusDocument {
    serde_json::from_value(value).expect("a status document")
}

/// Parses a document.
pub(super) fn timeline_of(value: Value) -> TimelineDocument {
    serde_json::from_value(value).expect("a timeline")
}

/// Parses a document.
pub(super) fn report_of(value: Value) -> ServiceReport {
    serde_json::from_value(value).expect("a report")
}
