//! The responses on health check node ports.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::follow::TIMEOUT;
use crate::http;
use crate::services::Case;

/// Checks that the addresses, status and body of health check node ports equal the recorded ones.
pub(crate) fn check_health_check_node_ports(case: &Case, step: usize) {
    let path = case.recording(step).join("health.json");
    let Ok(text) = fs::read_to_string(path) else { return };
    let recorded: Value = serde_json::from_str(&text).expect("the recording is JSON");
    for service in recorded.as_array().expect("a list of Services") {
        let port = service["port"].as_u64().expect("a port") as u16;
        let expected: Vec<&str> =
            service["listens"].as_array().expect("addresses").iter().filter_map(Value::as_str).collect();
        let get = |ip: IpAddr| http::get(SocketAddr::new(ip, port), "/");
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let responses: Vec<(String, String)> =
                case.host.addresses().filter_map(|ip| Some((ip.to_string(), get(ip)?))).collect();
            let listens: Vec<&str> = responses.iter().map(|(ip, _)| ip.as_str()).collect();
            let is_as_recorded = |(_, response): &(String, String)| {
                response.contains(&format!(" {} ", service["answer"]["status"]))
                    && response.ends_with(service["answer"]["body"].as_str().unwrap_or_default())
            };
            if listens == expected && responses.iter().all(is_as_recorded) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{} step {step}: expected {service}, found {responses:?}",
                case.name
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
