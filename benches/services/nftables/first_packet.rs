//! The cost of the first packet of a connection by the numbers of endpoints that Services of the cluster have: the mode in this
//! process, and packets of this process to a link without a peer.
//!
//! ```text
//! a datagram of a new flow ─► nat-output ─► services ─► dispatch ─► dnat ─► link that drops it
//! ```
//! Differences between Services of one cluster are the cost of the dispatch.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, DirtyServices};
use portcullis_cluster::{Event, Family, Index, Name};
use portcullis_modes::nftables::NftablesProxier;
use portcullis_modes::{NodeFacts, Options};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};
use serde_json::Value;

use super::line::{parse, sync};
use crate::cluster_state::{self, NODE, service_name, slice_with};
use crate::namespace::Namespace;

/// Flows for the percentiles.
const FLOWS: usize = 3_000;

/// A link that drops what is sent to it, as its peer is down.
const LINK: &str = "link set lo up
link add d0 type veth peer name d1
link set d0 arp off
addr add 192.168.0.1/24 dev d0
link set d0 up
route add default dev d0";

/// The figures for one cluster.
pub(crate) struct FirstPackets {
    counts: usize,
    /// Of the Service with fewest endpoints.
    fewest: Duration,
    /// The highest of some Services, and its number of endpoints.
    slowest: (Duration, usize),
}

/// Measures a cluster with one Service of each number of endpoints from 1 to `counts`.
pub(crate) fn measure(counts: usize) -> FirstPackets {
    Namespace::new().run(|| measure_here(counts))
}

fn measure_here(counts: usize) -> FirstPackets {
    for arguments in LINK.lines() {
        let status = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "`ip {arguments}` failed");
    }
    let (mut index, mut dirty) = (Index::new(), DirtyServices::default());
    for i in 0..counts {
        let name = service_name(i);
        let objects = [cluster_state::service(&name, i), slice_with(&name, 0, i + 1, None)];
        let objects = objects.map(|object| parse(with_udp(object)));
        objects.into_iter().for_each(|object| dirty.extend(index.handle(Event::Applied(object))));
    }
    let socket = Socket::open(NetlinkProtocol::Netfilter).expect("a netfilter socket");
    let mut mode = NftablesProxier::new(Options::default(), NodeFacts::default(), &[Family::V4], socket);
    sync(&mut mode, &mut Desired::new(Name::new(NODE)), &index, dirty);
    first_packet(0);
    let fewest = first_packet(0);
    let some = [counts.min(6), counts.min(7), counts.min(10), counts / 8, counts / 2, counts - 1, counts];
    let some = some.into_iter().filter(|count| *count > 0);
    let slowest = some.map(|count| (first_packet(count - 1), count)).max().expect("some Services");
    FirstPackets { counts, fewest, slowest }
}

/// Returns the median time to send the first datagram of a flow to a Service.
fn first_packet(service: usize) -> Duration {
    let ip = Ipv4Addr::new(172, 30, (service / 250) as u8, (service % 250 + 1) as u8);
    let to = SocketAddrV4::new(ip, 80);
    let once = |_| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let start = Instant::now();
        socket.send_to(b"x", to).expect("the link is up");
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..FLOWS).map(once).collect();
    times.sort();
    times[times.len() / 2]
}

fn with_udp(mut object: Value) -> Value {
    let path = if object["kind"] == "Service" { "/spec/ports/0/protocol" } else { "/ports/0/protocol" };
    *object.pointer_mut(path).expect("it has a port") = "UDP".into();
    object
}

impl fmt::Display for FirstPackets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let (slowest, count) = self.slowest;
        write!(
            f,
            "{:>7} numbers of endpoints   fewest {:>6.2} µs   slowest {:>6.2} µs ({count} endpoints)   difference {:>6.2} µs",
            self.counts,
            micros(self.fewest),
            micros(slowest),
            micros(slowest) - micros(self.fewest),
        )
    }
}
