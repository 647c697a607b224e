//! Measures listing and deleting conntrack entries: `cargo run --release --example conntrack_cost` as root. It creates a
//! network namespace and prints a table.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use portcullis_netlink::conntrack::{Conntrack, DeleteMethod, Filter, Flow, Tuple, TupleFilter};
use portcullis_netlink::{Family, Result};

const FLOWS: u32 = 40_000;
/// One flow in this many goes to the removed endpoint.
const STALE_ONE_IN: u32 = 5;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const SCTP: u8 = libc::IPPROTO_SCTP as u8;

fn main() -> Result<()> {
    // SAFETY: no pointers; this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("cannot make a network namespace: {}; run as root", std::io::Error::last_os_error());
        std::process::exit(1);
    }
    let mut conntrack = Conntrack::open()?;
    let flows: Vec<Flow> = (0..FLOWS).map(flow).collect();
    let stale = |flow: &Flow| flow.reply.source == endpoint(0);
    let on_stale_endpoint = TupleFilter { source: Some(endpoint(0)), ..TupleFilter::default() };
    let filter = Filter { reply: on_stale_endpoint, ..Filter::new(Family::V4).protocol(UDP) };

    timed("create 40,000 flows", || conntrack.create(&flows, Duration::from_secs(600)))?;
    for (what, families, protocols) in [
        ("dump all 40,000", &Family::ALL[..], &[][..]),
        ("dump UDP of IPv4 (40,000)", &[Family::V4], &[UDP]),
        ("dump SCTP of IPv4 (none)", &[Family::V4], &[SCTP]),
        ("dump UDP and SCTP of both (40,000)", &Family::ALL, &[UDP, SCTP]),
    ] {
        timed(what, || {
            let mut seen = 0;
            conntrack.dump(families, protocols, |_| {
                seen += 1;
                Ok(())
            })?;
            Ok(seen)
        })?;
    }
    timed("delete_where 8,000 of them", || conntrack.delete_where(&Family::ALL, &[UDP, SCTP], stale))?;
    timed("delete_where, none stale", || conntrack.delete_where(&Family::ALL, &[UDP, SCTP], stale))?;

    let again: Vec<Flow> = flows.iter().filter(|flow| stale(flow)).copied().collect();
    conntrack.create(&again, Duration::from_secs(600))?;
    match timed("delete_matching 8,000 of them", || conntrack.delete_matching(&filter))? {
        DeleteMethod::ByKernel => println!("    by one filtered delete"),
        DeleteMethod::OneByOne(_) => println!("    flow by flow: this kernel knows no filtered deletes"),
    }
    conntrack.create(&again, Duration::from_secs(600))?;
    conntrack.delete_one_by_one();
    timed("the same, flow by flow", || conntrack.delete_matching(&filter))?;
    Ok(())
}

fn timed<T: std::fmt::Debug>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let result = work()?;
    println!("{what:40} {:9.2} ms   {result:?}", started.elapsed().as_secs_f64() * 1e3);
    Ok(result)
}

fn endpoint(number: u32) -> std::net::IpAddr {
    Ipv4Addr::from(0x0a03_0000 + number).into()
}

fn flow(number: u32) -> Flow {
    let client = Ipv4Addr::from(0x0a01_0000 + number).into();
    let original = Tuple {
        source: client,
        destination: Ipv4Addr::from(0x0a02_0000 + number % 1000).into(),
        source_port: 40_000,
        destination_port: 53,
    };
    let reply = Tuple {
        source: endpoint(number % STALE_ONE_IN),
        destination: client,
        source_port: 5353,
        destination_port: 40_000,
    };
    Flow {
        family: Family::V4,
        protocol: UDP,
        original,
        reply,
        id: None,
        status: 0,
        zone: 0,
        mark: 0,
        is_picked_up: false,
    }
}
