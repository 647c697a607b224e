//! Events as lines of text, in columns.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::Style;

use super::color;
use crate::observe::traffic_events::{ConnectionTraffic, FrontendRef, Peer, TrafficEvent};

/// The names of the columns before the last one, with their widths. A column grows with what it has to hold.
const COLUMNS: [(&str, usize); 6] = [
    ("TIME (UTC)", 12),
    ("VERDICT", 7),
    ("DIRECTION", 9),
    ("PROTOCOL", 8),
    ("SOURCE", 24),
    ("DESTINATION", 40),
];

/// The name of the last column.
const LAST: &str = "REASON";

/// The greatest width to which a column grows.
const MAX_WIDTH: usize = 80;

/// Lines with the same columns.
#[derive(Debug)]
pub(super) struct Table {
    widths: [usize; COLUMNS.len()],
    has_colors: bool,
}

impl Table {
    pub(super) fn new(has_colors: bool) -> Self {
        Table { widths: COLUMNS.map(|(_, width)| width), has_colors }
    }

    /// Prints the names of the columns.
    pub(super) fn print_head(&mut self, out: &mut impl Write) -> io::Result<()> {
        let cells = COLUMNS.map(|(name, _)| name.to_owned());
        writeln!(out, "{}", self.line(&cells, LAST, None))
    }

    /// Prints an event.
    pub(super) fn print(&mut self, event: &TrafficEvent, out: &mut impl Write) -> io::Result<()> {
        let cells = [
            event.time.strftime("%H:%M:%S%.3f").to_string(),
            event.verdict.as_str().to_owned(),
            event.direction.as_deref().unwrap_or("-").to_owned(),
            protocol(event),
            event.source.as_ref().map_or("-".to_owned(), peer),
            destination(event),
        ];
        let style = self.has_colors.then(|| color(event.verdict).on_default());
        writeln!(out, "{}", self.line(&cells, &reason(event), style))
    }

    fn line(&mut self, cells: &[String; COLUMNS.len()], last: &str, verdict: Option<Style>) -> String {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let length = cell.chars().count();
            self.widths[at] = self.widths[at].max(length.min(MAX_WIDTH));
            let padding = self.widths[at].saturating_sub(length) + 2;
            // Writing to a string cannot fail.
            let _ = match verdict.filter(|_| COLUMNS[at].0 == "VERDICT") {
                Some(style) => write!(line, "{style}{cell}{style:#}{:padding$}", ""),
                None => write!(line, "{cell}{:padding$}", ""),
            };
        }
        line.push_str(last);
        line.truncate(line.trim_end().len());
        line
    }
}

fn protocol(event: &TrafficEvent) -> String {
    match (event.tcp_flags.as_deref(), event.icmp_type, event.icmp_code) {
        // The usual first segment.
        (Some("SYN"), _, _) | (None, None, _) => event.protocol.to_string(),
        (Some(flags), _, _) => format!("{} {flags}", event.protocol),
        (None, Some(kind), code) => format!("{} {kind}/{}", event.protocol, code.unwrap_or(0)),
    }
}

fn peer(peer: &Peer) -> String {
    match (&peer.pod, &peer.node, &peer.service) {
        (Some(pod), _, _) => with_port(pod.to_string(), peer.port),
        (None, Some(node), _) => format!("{} (node {node})", address(peer.address, peer.port)),
        (None, None, Some(service)) => format!("{} (svc/{service})", address(peer.address, peer.port)),
        (None, None, None) => address(peer.address, peer.port),
    }
}

/// Returns the destination: before DNAT, then after it.
fn destination(event: &TrafficEvent) -> String {
    let destination = event.destination.as_ref();
    let Some(frontend) = &event.frontend else { return destination.map_or("-".to_owned(), peer) };
    let before = before_dnat(frontend);
    match destination {
        Some(after) if (after.address, after.port) != (frontend.address, frontend.port) => {
            format!("{before} -> {}", peer(after))
        }
        _ => format!("{before} ({})", frontend.address),
    }
}

fn before_dnat(frontend: &FrontendRef) -> String {
    match &frontend.service {
        Some(service) => with_port(format!("svc/{service}"), frontend.port),
        None => address(frontend.address, frontend.port),
    }
}

fn with_port(mut text: String, port: Option<u16>) -> String {
    if let Some(port) = port {
        let _ = write!(text, ":{port}");
    }
    text
}

fn address(address: std::net::IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

fn reason(event: &TrafficEvent) -> String {
    let mut text = match (event.policies.as_ref(), event.reason) {
        ([], Some(reason)) => reason.describe().to_owned(),
        ([], None) => event.traffic.as_ref().map(traffic).unwrap_or_default(),
        (policies, _) => policies.join(", "),
    };
    if event.omitted_policies > 0 {
        let _ = write!(text, " and {} more", event.omitted_policies);
    }
    if let Some(seconds) = event.duration_seconds {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{seconds:.1} s");
    }
    if event.count > 1 {
        let _ = write!(text, " ({} packets)", event.count);
    }
    text
}

fn traffic(traffic: &ConnectionTraffic) -> String {
    let ConnectionTraffic { sent_packets, sent_bytes, received_packets, received_bytes } = traffic;
    format!(
        "sent {sent_bytes} bytes in {sent_packets} packets, received {received_bytes} in {received_packets}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::traffic_events::test_events::{connection, dropped, ended};
    use crate::observe::traffic_events::{DropReason, Verdict};

    #[test]
    fn events_are_lines_in_columns() {
        let by_source_ranges = || {
            let mut event = dropped();
            event.direction = None;
            event.reason = Some(DropReason::SourceRanges);
            event.policies = std::sync::Arc::from([]);
            let source = event.source.as_mut().expect("it has a source");
            (source.address, source.pod) = ("203.0.113.9".parse().expect("an address"), None);
            source.node = None;
            let frontend = event.frontend.clone().expect("it has a frontend");
            let destination = event.destination.as_mut().expect("it has a destination");
            (destination.address, destination.port) = (frontend.address, frontend.port);
            destination.pod = None;
            event.count = 3;
            event
        };
        let ping = TrafficEvent {
            verdict: Verdict::Audit,
            protocol: "ICMPv6".into(),
            icmp_type: Some(128),
            icmp_code: Some(0),
            tcp_flags: None,
            frontend: None,
            omitted_policies: 2,
            ..dropped()
        };
        let mut table = Table::new(false);
        let mut out = Vec::new();
        table.print_head(&mut out).expect("a vector");
        for event in [dropped(), by_source_ranges(), ping, connection(), ended()] {
            table.print(&event, &mut out).expect("a vector");
        }
        let text = String::from_utf8(out).expect("UTF-8");
        let expected = "\
TIME (UTC)    VERDICT  DIRECTION  PROTOCOL  SOURCE                    DESTINATION                               REASON
10:43:26.123  dropped  ingress    TCP       shop/web-1:40000          svc/shop/db:5432 -> shop/db-1:15432       NetworkPolicy shop/db-from-web
10:43:26.123  dropped  -          TCP       203.0.113.9:40000         svc/shop/db:5432 (10.96.0.20)             loadBalancerSourceRanges (3 packets)
10:43:26.123  audit    ingress    ICMPv6 128/0  shop/web-1:40000          shop/db-1:15432                           NetworkPolicy shop/db-from-web and 2 more
10:43:26.123  new      -          TCP           shop/web-1:40000          svc/shop/db:5432 -> shop/db-1:15432
10:43:26.123  ended    -          TCP           shop/web-1:40000          svc/shop/db:5432 -> shop/db-1:15432       sent 412 bytes in 6 packets, received 10240 in 5, 1.2 s
";
        assert_eq!(text, expected, "{text}");
    }

    #[test]
    fn verdict_is_colored_on_terminals() {
        let mut out = Vec::new();
        Table::new(true).print(&dropped(), &mut out).expect("a vector");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.contains("\u{1b}[31mdropped\u{1b}[0m  ingress"), "{text:?}");
    }
}
