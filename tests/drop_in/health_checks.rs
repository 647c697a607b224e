//! What load balancers are told on health check ports.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::follow::PATIENCE;
use crate::http;
use crate::services::Case;

/// The addresses that answer a health check port, the status and the body are those recorded.
pub(crate) fn answers_health_checks(case: &Case, step: usize) {
    let path = case.recording(step).join("health.json");
    let Ok(text) = fs::read_to_string(path) else { return };
    let recorded: Value = serde_json::from_str(&text).expect("the recording is JSON");
    for service in recorded.as_array().expect("a list of Services") {
        let port = service["port"].as_u64().expect("a port") as u16;
        let wanted: Vec<&str> =
            service["listens"].as_array().expect("addresses").iter().filter_map(Value::as_str).collect();
        let ask = |ip: IpAddr| http::get(SocketAddr::new(ip, port), "/");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers: Vec<(String, String)> =
                case.host.addresses().filter_map(|ip| Some((ip.to_string(), ask(ip)?))).collect();
            let listens: Vec<&str> = answers.iter().map(|(ip, _)| ip.as_str()).collect();
            let as_recorded = |(_, answer): &(String, String)| {
                answer.contains(&format!(" {} ", service["answer"]["status"]))
                    && answer.ends_with(service["answer"]["body"].as_str().unwrap_or_default())
            };
            if listens == wanted && answers.iter().all(as_recorded) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{} step {step}: wanted {service}, found {answers:?}",
                case.name
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
