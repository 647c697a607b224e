//! Records the responses of the kernel as corpora of the netlink targets, in network namespaces and in user-mode Linux.
//! Needs root:
//!
//! ```text
//! cargo run -p portcullis-fuzz --example record_corpora -- fuzz/corpus
//! ```

#![allow(clippy::unwrap_used, reason = "a recorder that cannot go on has failed")]

#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "record_corpora/recording.rs"]
mod recording;
#[path = "../targets/sample_cluster.rs"]
mod sample_cluster;

use std::env;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use namespace::{inside, run};
use portcullis_cluster::Family;
use portcullis_machines::uml;
use portcullis_modes::nftables;
use portcullis_netlink::Family as NetlinkFamily;
use portcullis_netlink::conntrack::{ConnectionEvents, Conntrack, Filter, Flow, Tuple};
use portcullis_netlink::ip_vs::{IpVs, RealServer, ServerBatch, VirtualServer, VirtualServerConfig};
use portcullis_netlink::ipset::{DEFAULT_MAXELEM, IpSets, SetEntry, SetType};
use portcullis_netlink::log::PacketLog;
use portcullis_netlink::nf_tables::{self, DesiredTable, RulesetEvents, TableFamily, Transaction};
use portcullis_netlink::route::{AddressMonitor, Rtnetlink};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};
use recording::record;

/// The argument with which the program runs inside of a machine.
const IN_MACHINE: &str = "--in-machine";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [IN_MACHINE, folder] => {
            record_ip_vs(Path::new(folder));
            record_ipset(Path::new(folder));
        }
        [folder] => {
            let folder = PathBuf::from(folder).canonicalize().expect("the folder of the corpora");
            inside(|| record_nf_tables(&folder));
            inside(|| record_conntrack(&folder));
            inside(|| record_events(&folder));
            inside(|| record_route(&folder));
            let program = env::current_exe().unwrap();
            uml::run(&program, [IN_MACHINE, folder.to_str().unwrap()], Duration::from_secs(60)).unwrap();
        }
        _ => panic!("usage: record_corpora FOLDER"),
    }
}

const TABLE: &str = "portcullis";

/// What another process may add to the table.
const FOREIGN: &str = "
table ip portcullis {
    chain foreign { type filter hook forward priority 7; policy drop; ct state vmap { established : accept, invalid : drop }; }
    chain marked { meta mark set ct mark | 0x1; limit rate 5/second log prefix \"x\" group 3; quota over 5 mbytes; }
    counter named { packets 5 bytes 6; }
    map objects { type ipv4_addr : counter; }
    set timed { type ipv4_addr . inet_service; flags timeout; timeout 1h; elements = { 10.0.0.1 . 80 timeout 5m comment \"mine\" }; }
    set ranges { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8, 192.168.0.1-192.168.0.9 }; }
    map every { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop, * : accept }; }
    quota big { over 5 mbytes; }
}
";

fn nft(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

fn read_table() {
    let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
    nf_tables::generation(&mut socket).unwrap();
    nf_tables::list_chains(&mut socket, TableFamily::Ip, |_| ()).unwrap();
    nf_tables::read_counters(&mut socket, TableFamily::Ip, TABLE).unwrap();
    nf_tables::read(&mut socket, TableFamily::Ip, TABLE).unwrap();
}

fn record_nf_tables(folder: &Path) {
    let dump = folder.join("nf_tables_dump");
    let table = nftables::render(
        &sample_cluster::desired(),
        Family::V4,
        &sample_cluster::options(),
        &sample_cluster::node(),
    );
    let mut desired = DesiredTable::new(table.family, &table.name);
    table.counters.iter().for_each(|(name, comment)| desired.put_counter(name, comment.as_deref()));
    table.sets.iter().for_each(|(name, set)| desired.put_set(name, set.clone()));
    table.chains.iter().for_each(|(name, chain)| desired.put_chain(name, chain.clone()));

    record(&folder.join("nf_tables_events"), "events", || {
        let own = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut events = RulesetEvents::listen(TABLE, &own).unwrap();
        nft(
            "table ip portcullis { set s { type ipv4_addr; elements = { 10.0.0.1 }; }\n chain c { drop; }\n}",
        );
        events.wait(|_| ()).unwrap();
        nft("delete table ip portcullis");
        events.wait(|_| ()).unwrap();
        run("iptables-nft -N KUBE-TEST");
        events.wait(|_| ()).unwrap();
    });
    record(&folder.join("netlink_responses"), "transactions", || {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        nf_tables::commit(&mut socket, &mut desired).unwrap();
        let mut rejected = Transaction::new("test", TableFamily::Ip, "missing").unwrap();
        rejected.delete_chain("missing").unwrap();
        rejected.commit(&mut socket).unwrap_err();
    });
    record(&dump, "own", read_table);
    nft(FOREIGN);
    record(&dump, "foreign", read_table);
    nft("delete table ip portcullis");
    record(&dump, "missing", || {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        assert_eq!(nf_tables::read(&mut socket, TableFamily::Ip, TABLE).unwrap(), None);
    });
}

fn flow(original: (&str, u16), reply: (&str, u16), protocol: u8) -> Flow {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let tuple = |source: (IpAddr, u16), destination: (IpAddr, u16)| Tuple {
        source: source.0,
        destination: destination.0,
        source_port: source.1,
        destination_port: destination.1,
    };
    let client = (address(if original.0.contains(':') { "fd00::1" } else { "10.1.1.1" }), 4000);
    Flow {
        family: if original.0.contains(':') { NetlinkFamily::V6 } else { NetlinkFamily::V4 },
        protocol,
        original: tuple(client, (address(original.0), original.1)),
        reply: tuple((address(reply.0), reply.1), client),
        id: None,
        status: 0,
        zone: 0,
        mark: 0,
        is_picked_up: false,
    }
}

fn record_conntrack(folder: &Path) {
    let folder = folder.join("conntrack");
    nft("table ip track { chain c { type filter hook prerouting priority 0; ct state new accept; }; }");
    let flows = [
        flow(("10.96.0.10", 53), ("10.244.1.6", 53), 17),
        flow(("10.96.0.1", 80), ("10.244.0.5", 8080), 6),
        flow(("fd00::10", 53), ("fd00:244::6", 53), 17),
    ];
    Conntrack::open().unwrap().create(&flows, Duration::from_secs(300)).unwrap();
    record(&folder, "flows", || {
        Conntrack::open().unwrap().dump(&NetlinkFamily::ALL, &[], |_| Ok(())).unwrap();
    });
    record(&folder, "deletes", || {
        let mut conntrack = Conntrack::open().unwrap();
        conntrack.delete_where(&NetlinkFamily::ALL, &[17, 132], |_| true).unwrap();
        conntrack.delete_matching(&Filter::new(NetlinkFamily::V4).protocol(6)).unwrap();
    });
}

/// Reads until this many events were received.
fn read_until(count: usize, mut read: impl FnMut() -> usize) {
    let mut seen = 0;
    while seen < count {
        seen += read();
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn record_events(folder: &Path) {
    run("ip link set lo up");
    run("sysctl -q -w net.netfilter.nf_conntrack_acct=1");
    nft(
        "table inet logged { chain c { type filter hook output priority 0; udp dport 9 log prefix \"drop in x\" group 5 drop; ct state new accept; }; }",
    );
    let send = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).unwrap();
        let _ = socket.send_to(b"hello", to);
    };
    record(&folder.join("packet_log"), "packets", || {
        let mut log = PacketLog::bind(5).unwrap().expect("the group is free");
        send("127.0.0.1:4000", "127.0.0.1:9");
        send("[::1]:4000", "[::1]:9");
        read_until(2, || {
            let mut packets = 0;
            log.receive(|_| packets += 1).unwrap();
            packets
        });
    });
    record(&folder.join("conntrack_events"), "events", || {
        let mut events = ConnectionEvents::listen().unwrap();
        send("127.0.0.1:4000", "127.0.0.1:7");
        send("[::1]:4000", "[::1]:7");
        let mut conntrack = Conntrack::open().unwrap();
        conntrack.delete_where(&NetlinkFamily::ALL, &[17], |_| true).unwrap();
        read_until(4, || {
            let mut count = 0;
            events.receive(|_| count += 1).unwrap();
            count
        });
    });
}

fn record_route(folder: &Path) {
    let dumps = folder.join("route");
    run("ip link set lo up");
    run("ip link add br0 type bridge");
    run("ip link add veth0 type veth peer name veth1");
    run("ip link set br0 up");
    run("ip address add 192.168.10.11/24 dev br0");
    run("ip address add fd00:192::11/64 dev br0 nodad");
    run("ip route add default via 192.168.10.1 src 192.168.10.11");
    let open = || Rtnetlink::open().unwrap();
    record(&dumps, "links", || _ = open().links().unwrap());
    record(&dumps, "addresses", || _ = open().addresses(&NetlinkFamily::ALL).unwrap());
    record(&dumps, "routes", || _ = open().default_route_source(NetlinkFamily::V4).unwrap());
    record(&dumps, "local-routes", || _ = open().local_route_addresses().unwrap());
    record(&dumps, "index", || _ = open().link_index("br0").unwrap());
    record(&folder.join("route_events"), "addresses", || {
        let mut monitor = AddressMonitor::open().unwrap();
        run("ip address add 192.168.10.12/24 dev br0");
        run("ip address del 192.168.10.12/24 dev br0");
        monitor.try_next().unwrap();
        monitor.try_next().unwrap();
    });
}

fn record_ip_vs(folder: &Path) {
    let mut ip_vs = IpVs::open().unwrap().expect("ip_vs is loaded");
    let mut batch = ServerBatch::new();
    for (address, protocol, port) in [("10.96.0.1", 6, 80), ("fd00::10", 17, 53)] {
        let server = VirtualServer { protocol, address: address.parse().unwrap(), port };
        let family = NetlinkFamily::from_address(server.address);
        batch.add_virtual_server(&server, &VirtualServerConfig::new("rr", family)).unwrap();
        for host in [5, 6] {
            let pod = if family == NetlinkFamily::V4 {
                format!("10.244.0.{host}")
            } else {
                format!("fd00:244::{host}")
            };
            let real = RealServer { address: pod.parse().unwrap(), port: 8080, weight: 1 };
            batch.add_real_server(&server, &real).unwrap();
        }
    }
    ip_vs.send(&mut batch, |_, error| Err(error)).unwrap();
    record(&folder.join("ip_vs"), "servers", || {
        let mut ip_vs = IpVs::open().unwrap().unwrap();
        for (server, _) in ip_vs.virtual_servers().unwrap() {
            ip_vs.real_servers(&server).unwrap();
            ip_vs.statistics(&server).unwrap();
            ip_vs.get(&server).unwrap();
        }
        ip_vs.all_statistics().unwrap();
        ip_vs.timeouts().unwrap();
    });
}

fn record_ipset(folder: &Path) {
    let folder = folder.join("ipset");
    let mut sets = IpSets::open_or_load().unwrap();
    let address = || "10.96.0.1".parse().unwrap();
    let entries = [(SetType::HashIp, SetEntry::Ip(address())), (SetType::BitmapPort, SetEntry::Port(30080))];
    for (set_type, entry) in entries {
        let name = format!("KUBE-{}", set_type.name().replace([':', ','], "-"));
        sets.create(&name, set_type, NetlinkFamily::V4, DEFAULT_MAXELEM).unwrap();
        sets.change(&name, [entry], []).unwrap();
    }
    for (set_type, entry) in [
        ("hash:ip,port", "10.96.0.1,tcp:80"),
        ("hash:ip,port,ip", "10.96.0.1,udp:53,10.244.0.5"),
        ("hash:ip,port,net", "10.96.0.1,sctp:9,10.0.0.0/8"),
    ] {
        run(&format!("ipset create S{} {set_type}", set_type.len()));
        run(&format!("ipset add S{} {entry}", set_type.len()));
    }
    record(&folder, "lists", || {
        let mut sets = IpSets::open_or_load().unwrap();
        for name in sets.names().unwrap() {
            sets.header(&name).unwrap();
            sets.entries(&name, |_| Ok(())).unwrap();
            sets.ports(&name).unwrap();
        }
    });
    record(&folder, "full", || {
        let mut sets = IpSets::open_or_load().unwrap();
        sets.create("small", SetType::HashIp, NetlinkFamily::V4, 1).unwrap();
        let many = (1..200u8).map(|n| SetEntry::Ip(IpAddr::from([10, 0, 0, n])));
        sets.change("small", many, []).unwrap_err();
        sets.entries("missing", |_| Ok(())).unwrap();
    });
}
