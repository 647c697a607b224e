//! Services with many addresses: most of their rules are in one chain. Their first sync beside the tool with the same text, and their
//! cleanup beside one restore that flushes and deletes the same chains.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::bare::{self, Restore};
use super::flavour::Flavour;
use super::scenario::launch;
use crate::api_server::ApiServer;
use crate::cluster_state::node;
use crate::daemon::Daemon;
use crate::figures::{Spent, grouped};
use crate::namespace::{Namespace, SETTLE};
use crate::process;

/// A Service may have 10,000 frontends.
const SERVICES: usize = 10;
const PORTS: usize = 300;
const ADDRESSES: usize = 26;

/// An action of the daemon or of a command, and the same by the bare tool.
struct Pair {
    what: &'static str,
    ours: Spent,
    bare: Spent,
}

/// The figures for one flavour of the tool.
pub(crate) struct ManyAddresses {
    flavour: Flavour,
    first: Pair,
    cleanup: Pair,
}

/// Measures once with a flavour of the tool.
pub(crate) fn measure(flavour: Flavour) -> ManyAddresses {
    let folder = TempDir::new().expect("a temporary folder");
    let (tools, records) = (folder.path().join("recording-tools"), folder.path().join("records"));
    flavour.link_recording_tools(&tools, &records);
    let ours = Namespace::new();
    let server = ours.run(|| {
        let server = ApiServer::start();
        server.load(std::iter::once(node()).chain((0..SERVICES).flat_map(objects)));
        server.set_revision(1);
        server
    });
    let (daemon, took) = Daemon::start(&ours, &server, launch(&tools), folder.path());
    drop(daemon);
    let first = Spent {
        wall: took.listed.unwrap_or(took.all),
        processor: took.processor.own + took.processor.children,
    };
    let recorded = bare::take_recorded(&records, &folder.path().join("first"));
    let flush = flush_of(&recorded, folder.path());

    let theirs = Namespace::new();
    let bare_first = theirs.run(|| bare::restore(flavour, &recorded));
    let bare_cleanup = theirs.run(|| bare::restore(flavour, &flush));
    drop(theirs);
    sleep(SETTLE);
    let plain_tools = folder.path().join("tools");
    flavour.link_tools(&plain_tools);
    let cleanup = ours.run(|| cleanup(&plain_tools));
    ManyAddresses {
        flavour,
        first: Pair { what: "first sync", ours: first, bare: bare_first },
        cleanup: Pair { what: "cleanup", ours: cleanup, bare: bare_cleanup },
    }
}

/// Runs the subcommand in the network namespace of this thread.
fn cleanup(tools: &Path) -> Spent {
    let start = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("cleanup").env("PATH", tools).stdin(Stdio::null()).stdout(Stdio::null());
    let (status, processor) = process::wait(&mut command.spawn().expect("the program was built"));
    assert!(status.success(), "cleanup failed: {status}");
    Spent { wall: start.elapsed(), processor }
}

/// Returns a restore that flushes the built-in chains, and flushes and deletes all chains that other restores declared.
fn flush_of(restores: &[Restore], folder: &Path) -> Vec<Restore> {
    let mut chains: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for restore in restores {
        let text = fs::read_to_string(&restore.text).expect("it was recorded");
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split(' ').next().unwrap_or_default();
                chains.entry(table.clone()).or_default().insert(name.to_owned());
            } else if let Some(name) = line.strip_prefix("-X ") {
                chains.entry(table.clone()).or_default().remove(name);
            }
        }
    }
    let mut text = String::new();
    for (table, chains) in chains {
        let built_in: &[&str] = match table.as_str() {
            "nat" => &["PREROUTING", "OUTPUT", "POSTROUTING"],
            "filter" => &["INPUT", "FORWARD", "OUTPUT"],
            _ => &[],
        };
        text += &format!("*{table}\n");
        chains.iter().for_each(|chain| text += &format!(":{chain} - [0:0]\n"));
        built_in.iter().for_each(|chain| text += &format!("-F {chain}\n"));
        chains.iter().for_each(|chain| text += &format!("-X {chain}\n"));
        text += "COMMIT\n";
    }
    let path = folder.join("flush.text");
    fs::write(&path, text).expect("the temporary folder can be written");
    let arguments = ["-w", "5", "--noflush"].map(str::to_owned).to_vec();
    vec![Restore { arguments, text: path }]
}

/// Returns a Service with external IPs, and its EndpointSlices of one endpoint.
fn objects(n: usize) -> Vec<Value> {
    let name = format!("many-addresses-{n}");
    let ip = format!("172.30.0.{}", n + 1);
    let port = |p: usize| 1_000 + p;
    let external: Vec<String> = (1..ADDRESSES).map(|a| format!("203.0.{}.{a}", 113 + n)).collect();
    let ports: Vec<Value> = (0..PORTS)
        .map(|p| json!({"name": format!("p{p}"), "protocol": "TCP", "port": port(p), "targetPort": port(p)}))
        .collect();
    let metadata = |name: &str| json!({"name": name, "namespace": "bench", "resourceVersion": "1"});
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(&name),
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "externalIPs": external,
            "ipFamilies": ["IPv4"], "selector": {"app": name}, "ports": ports,
        },
    })];
    // An EndpointSlice has 100 ports at most.
    for (at, ports) in ports.chunks(100).enumerate() {
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata(&format!("{name}-{at}")),
            "addressType": "IPv4",
            "endpoints": [{"addresses": [format!("10.1.0.{}", n + 1)], "conditions": {"ready": true}}],
            "ports": ports.iter().map(|port| {
                json!({"name": port["name"], "protocol": "TCP", "port": port["port"]})
            }).collect::<Vec<_>>(),
        });
        slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": name});
        objects.push(slice);
    }
    objects
}

impl fmt::Display for ManyAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = grouped(SERVICES * PORTS * ADDRESSES);
        for Pair { what, ours, bare } in [&self.first, &self.cleanup] {
            let ratio = |ours: std::time::Duration, bare: std::time::Duration| {
                ours.as_secs_f64() / bare.as_secs_f64().max(f64::EPSILON)
            };
            writeln!(
                f,
                "  {rules} rules, {} tool, {what:<10} {:>7.2} s ({:.2})   CPU {:>6.2} s ({:.2})",
                self.flavour.name(),
                ours.wall.as_secs_f64(),
                ratio(ours.wall, bare.wall),
                ours.processor.as_secs_f64(),
                ratio(ours.processor, bare.processor),
            )?;
        }
        Ok(())
    }
}
