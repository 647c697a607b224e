//! Virtual servers, and the dummy interface with their addresses, in user-mode Linux.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use namespace::run;
use portcullis_machines::uml::inside;
use portcullis_netlink::ip_vs::{
    IpVs, PERSISTENT, RealServer, RealServerState, SCHED_1, SCHED_2, ServerBatch, Statistics, Timeouts,
    VirtualServer, VirtualServerConfig,
};
use portcullis_netlink::route::{AddressBatch, Rtnetlink};
use portcullis_netlink::{Error, Family, Result};

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const SCTP: u8 = libc::IPPROTO_SCTP as u8;

fn server(protocol: u8, address: &str, port: u16) -> VirtualServer {
    VirtualServer { protocol, address: address.parse().unwrap(), port }
}

fn real(address: &str, port: u16, weight: u32) -> RealServer {
    RealServer { address: address.parse().unwrap(), port, weight }
}

/// The callback for batches without rejections.
fn none(_: usize, error: Error) -> Result<()> {
    Err(error)
}

fn listed(ip_vs: &mut IpVs, server: &VirtualServer) -> BTreeSet<RealServer> {
    let states = ip_vs.real_servers(server).unwrap();
    assert!(states.iter().all(|state| state.forwarding == 0), "all are masquerading");
    states.into_iter().map(|state| state.server).collect()
}

/// Returns the sorted output of ipvsadm.
fn saved() -> BTreeSet<String> {
    run("ipvsadm -Sn").lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn servers_are_added_changed_listed_and_deleted() {
    inside(|| {
        let mut ip_vs = IpVs::open().unwrap().expect("ip_vs is loaded");
        assert_eq!(ip_vs.virtual_servers().unwrap(), []);

        let (v4, v6) = (Family::V4, Family::V6);
        let persistent = VirtualServerConfig {
            flags: PERSISTENT,
            timeout: 10_800,
            netmask: 0xffff_ff00,
            ..VirtualServerConfig::new("rr", v4)
        };
        let maglev = VirtualServerConfig { flags: SCHED_1 | SCHED_2, ..VirtualServerConfig::new("mh", v4) };
        let persistent_v6 = VirtualServerConfig {
            flags: PERSISTENT,
            timeout: 360,
            netmask: 64,
            ..VirtualServerConfig::new("lc", v6)
        };
        // (virtual server, config, line of ipvsadm)
        let rows = [
            (server(TCP, "10.96.0.1", 443), VirtualServerConfig::new("rr", v4), "-A -t 10.96.0.1:443 -s rr"),
            (
                server(UDP, "10.96.0.1", 443),
                VirtualServerConfig::new("wrr", v4),
                "-A -u 10.96.0.1:443 -s wrr",
            ),
            (
                server(SCTP, "10.96.0.1", 443),
                VirtualServerConfig::new("sh", v4),
                "-A --sctp-service 10.96.0.1:443 -s sh",
            ),
            (server(TCP, "10.96.0.2", 80), persistent, "-A -t 10.96.0.2:80 -s rr -p 10800 -M 255.255.255.0"),
            (server(TCP, "10.96.0.3", 80), maglev, "-A -t 10.96.0.3:80 -s mh -b mh-fallback,mh-port"),
            (
                server(TCP, "fd00:96::1", 443),
                VirtualServerConfig::new("rr", v6),
                "-A -t [fd00:96::1]:443 -s rr",
            ),
            (
                server(UDP, "fd00:96::1", 53),
                VirtualServerConfig::new("lc", v6),
                "-A -u [fd00:96::1]:53 -s lc",
            ),
            (
                server(SCTP, "fd00:96::1", 9),
                persistent_v6,
                "-A --sctp-service [fd00:96::1]:9 -s lc -p 360 -M 64",
            ),
        ];
        let mut batch = ServerBatch::new();
        assert!(batch.is_empty());
        for (server, config, _) in &rows {
            batch.add_virtual_server(server, config).unwrap();
        }
        assert_eq!(batch.len(), rows.len());
        ip_vs.send(&mut batch, none).unwrap();

        let expected: BTreeSet<_> = rows.iter().map(|(server, ..)| *server).collect();
        let found = ip_vs.virtual_servers().unwrap();
        assert_eq!(found.iter().map(|(server, _)| *server).collect::<BTreeSet<_>>(), expected);
        for (server, config, _) in &rows {
            assert!(found.contains(&(*server, config.clone())), "{server:?} {found:?}");
            assert_eq!(ip_vs.get(server).unwrap().as_ref(), Some(config), "{server:?}");
        }
        assert_eq!(saved(), rows.iter().map(|(.., line)| (*line).to_owned()).collect());

        // A virtual server with a packet mark is skipped.
        run("ipvsadm -A -f 7 -s rr");
        assert_eq!(ip_vs.virtual_servers().unwrap().len(), rows.len());
        run("ipvsadm -D -f 7");

        let changed =
            VirtualServerConfig { flags: PERSISTENT, timeout: 60, ..VirtualServerConfig::new("wrr", v4) };
        let back = VirtualServerConfig::new("lc", v4);
        for config in [&changed, &back] {
            batch.clear();
            batch.set_virtual_server(&rows[0].0, config).unwrap();
            ip_vs.send(&mut batch, none).unwrap();
            assert_eq!(ip_vs.get(&rows[0].0).unwrap().as_ref(), Some(config));
        }

        assert_eq!(ip_vs.get(&server(TCP, "10.96.0.9", 1)).unwrap(), None);
        assert_eq!(ip_vs.statistics(&server(TCP, "10.96.0.9", 1)).unwrap(), None);
        assert!(ip_vs.delete(&rows[0].0).unwrap());
        assert!(!ip_vs.delete(&rows[0].0).unwrap());
        batch.clear();
        batch.delete_virtual_server(&rows[5].0).unwrap();
        ip_vs.send(&mut batch, none).unwrap();
        assert_eq!(ip_vs.virtual_servers().unwrap().len(), rows.len() - 2);
        ip_vs.flush().unwrap();
        assert_eq!(ip_vs.virtual_servers().unwrap(), []);
    });
}

#[test]
fn real_servers_are_added_changed_listed_and_deleted() {
    inside(|| {
        let mut ip_vs = IpVs::open().unwrap().unwrap();
        for (virtual_server, reals) in [
            (server(TCP, "10.96.0.1", 80), [real("10.244.0.1", 8080, 1), real("10.244.0.2", 8080, 0)]),
            (server(SCTP, "fd00:96::1", 80), [real("fd00:244::1", 8080, 100), real("fd00:244::1", 8081, 0)]),
        ] {
            let mut batch = ServerBatch::new();
            let config = VirtualServerConfig::new("wrr", Family::from_address(virtual_server.address));
            batch.add_virtual_server(&virtual_server, &config).unwrap();
            reals.iter().for_each(|real| batch.add_real_server(&virtual_server, real).unwrap());
            ip_vs.send(&mut batch, none).unwrap();
            assert_eq!(listed(&mut ip_vs, &virtual_server), reals.into());
            let state = ip_vs.real_servers(&virtual_server).unwrap()[0];
            let RealServerState { active, inactive, persistent, .. } = state;
            assert_eq!((active, inactive, persistent), (0, 0, 0));

            let [first, second] = reals;
            let lighter = RealServer { weight: 0, ..first };
            batch.clear();
            batch.set_real_server(&virtual_server, &lighter).unwrap();
            ip_vs.send(&mut batch, none).unwrap();
            assert_eq!(listed(&mut ip_vs, &virtual_server), [lighter, second].into());

            batch.clear();
            batch.delete_real_server(&virtual_server, second.address, second.port).unwrap();
            ip_vs.send(&mut batch, none).unwrap();
            assert_eq!(listed(&mut ip_vs, &virtual_server), [lighter].into());
        }
        assert_eq!(
            saved(),
            [
                "-A -t 10.96.0.1:80 -s wrr",
                "-a -t 10.96.0.1:80 -r 10.244.0.1:8080 -m -w 0",
                "-A --sctp-service [fd00:96::1]:80 -s wrr",
                "-a --sctp-service [fd00:96::1]:80 -r [fd00:244::1]:8080 -m -w 0",
            ]
            .map(str::to_owned)
            .into()
        );
        // A real server of another program may have another forwarding method.
        run("ipvsadm -a -t 10.96.0.1:80 -r 10.244.0.9:80 -g");
        let states = ip_vs.real_servers(&server(TCP, "10.96.0.1", 80)).unwrap();
        let theirs = states.iter().find(|state| state.server.address == Ipv4Addr::new(10, 244, 0, 9));
        assert_eq!(theirs.unwrap().forwarding, 3);
        assert_eq!(ip_vs.real_servers(&server(TCP, "10.96.0.9", 80)).unwrap(), []);
    });
}

#[test]
fn a_large_batch_reports_rejections_by_position() {
    inside(|| {
        let mut ip_vs = IpVs::open().unwrap().unwrap();
        let virtual_server = server(TCP, "10.96.0.1", 80);
        let numbered = |number: u32| RealServer {
            address: Ipv4Addr::from(0x0af4_0000 + number).into(),
            port: 8080,
            weight: 1,
        };
        let reals: Vec<_> = (0..5000).map(numbered).collect();
        let mut batch = ServerBatch::new();
        batch.add_virtual_server(&virtual_server, &VirtualServerConfig::new("rr", Family::V4)).unwrap();
        let mut expected = Vec::new();
        for (number, real) in reals.iter().enumerate() {
            // In the first and the last send, and the last message, which requests an ACK.
            if number == 100 || number == 4900 {
                expected.push((batch.len(), Some(libc::EEXIST)));
                batch
                    .add_virtual_server(&virtual_server, &VirtualServerConfig::new("rr", Family::V4))
                    .unwrap();
                expected.push((batch.len(), Some(libc::EEXIST)));
                batch.add_real_server(&virtual_server, &reals[0]).unwrap();
                expected.push((batch.len(), Some(libc::ENOENT)));
                batch.set_real_server(&virtual_server, &numbered(9000)).unwrap();
                expected.push((batch.len(), Some(libc::ESRCH)));
                batch
                    .set_virtual_server(
                        &server(UDP, "10.96.0.1", 80),
                        &VirtualServerConfig::new("rr", Family::V4),
                    )
                    .unwrap();
                expected.push((batch.len(), Some(libc::ESRCH)));
                batch.add_real_server(&server(UDP, "10.96.0.1", 80), real).unwrap();
                expected.push((batch.len(), Some(libc::ENOENT)));
                batch
                    .add_virtual_server(
                        &server(UDP, "10.96.0.1", 80),
                        &VirtualServerConfig::new("bogus", Family::V4),
                    )
                    .unwrap();
                expected.push((batch.len(), Some(libc::ESRCH)));
                batch.delete_virtual_server(&server(SCTP, "10.96.0.1", 80)).unwrap();
            }
            batch.add_real_server(&virtual_server, real).unwrap();
        }
        expected.push((batch.len(), Some(libc::ENOENT)));
        batch.delete_real_server(&virtual_server, numbered(9000).address, 8080).unwrap();

        let mut rejected = Vec::new();
        let started = Instant::now();
        let outcome = ip_vs.send(&mut batch, |position, error| {
            rejected.push((position, error.errno()));
            Ok(())
        });
        println!("{} changes, {} bytes: {:?}", batch.len(), batch.size(), started.elapsed());
        outcome.unwrap();
        assert_eq!(rejected, expected);
        assert_eq!(listed(&mut ip_vs, &virtual_server), reals.iter().copied().collect());

        // Sent again, every change is rejected and reported.
        let mut rejected = 0;
        let started = Instant::now();
        let outcome = ip_vs.send(&mut batch, |_, _| {
            rejected += 1;
            Ok(())
        });
        println!("the same again, all rejected: {:?}", started.elapsed());
        outcome.unwrap();
        assert_eq!(rejected, batch.len());

        batch.clear();
        reals.iter().for_each(|real| {
            batch.delete_real_server(&virtual_server, real.address, real.port).unwrap();
        });
        let started = Instant::now();
        ip_vs.send(&mut batch, none).unwrap();
        println!("{} deleted: {:?}", reals.len(), started.elapsed());
        assert_eq!(listed(&mut ip_vs, &virtual_server), BTreeSet::new());

        // The size of a cold start: 1,000 virtual servers with 5 real servers each.
        batch.clear();
        for number in 0..1000u32 {
            let virtual_server =
                VirtualServer { address: Ipv4Addr::from(0x0a60_1000 + number).into(), ..virtual_server };
            batch.add_virtual_server(&virtual_server, &VirtualServerConfig::new("rr", Family::V4)).unwrap();
            (0..5).for_each(|n| batch.add_real_server(&virtual_server, &numbered(number * 5 + n)).unwrap());
        }
        let started = Instant::now();
        ip_vs.send(&mut batch, none).unwrap();
        println!("1,000 virtual servers of 5: {:?}", started.elapsed());
        let started = Instant::now();
        assert_eq!(ip_vs.virtual_servers().unwrap().len(), 1001);
        println!("1,001 virtual servers listed: {:?}", started.elapsed());
    });
}

#[test]
fn timeouts_are_set_and_packets_counted() {
    inside(|| {
        let mut ip_vs = IpVs::open().unwrap().unwrap();
        assert_eq!(ip_vs.timeouts().unwrap(), Timeouts { tcp: 900, tcp_fin: 120, udp: 300 });
        ip_vs.set_timeouts(Timeouts { tcp: 600, tcp_fin: 0, udp: 30 }).unwrap();
        assert_eq!(ip_vs.timeouts().unwrap(), Timeouts { tcp: 600, tcp_fin: 120, udp: 30 });
        assert_eq!(run("ipvsadm -Ln --timeout").trim(), "Timeout (tcp tcpfin udp): 600 120 30");
        let too_long = Timeouts { tcp: u32::MAX, ..Timeouts::default() };
        assert_eq!(ip_vs.set_timeouts(too_long).unwrap_err().errno(), Some(libc::EINVAL));

        let virtual_server = server(UDP, "10.96.0.1", 53);
        let mut batch = ServerBatch::new();
        batch.add_virtual_server(&virtual_server, &VirtualServerConfig::new("rr", Family::V4)).unwrap();
        batch.add_real_server(&virtual_server, &real("127.0.0.1", 5353, 1)).unwrap();
        ip_vs.send(&mut batch, none).unwrap();
        assert_eq!(ip_vs.statistics(&virtual_server).unwrap(), Some(Statistics::default()));

        let mut interfaces = Rtnetlink::open().unwrap();
        let link = interfaces.add_link_dummy("kube-ipvs0").unwrap();
        interfaces.add_address(link, "10.96.0.1/32".parse().unwrap()).unwrap();
        let _real = UdpSocket::bind("127.0.0.1:5353").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"question", "10.96.0.1:53").unwrap();
        // The kernel updates the counters every two seconds.
        let until = Instant::now() + Duration::from_secs(10);
        let counted = loop {
            let counted = ip_vs.statistics(&virtual_server).unwrap().unwrap();
            if counted != Statistics::default() || Instant::now() > until {
                break counted;
            }
            thread::sleep(Duration::from_millis(100));
        };
        let bytes_in = 20 + 8 + b"question".len() as u64;
        assert_eq!((counted.connections, counted.packets_in, counted.bytes_in), (1, 1, bytes_in));
        assert_eq!(ip_vs.real_servers(&virtual_server).unwrap()[0].inactive, 1);
    });
}

#[test]
fn a_dummy_interface_has_thousands_of_addresses() {
    inside(|| {
        let mut interfaces = Rtnetlink::open().unwrap();
        let link = interfaces.add_link_dummy("kube-ipvs0").unwrap();
        assert_eq!(interfaces.add_link_dummy("kube-ipvs0").unwrap(), link, "it is there");
        let found = interfaces.links().unwrap().into_iter().find(|found| found.index == link).unwrap();
        assert_eq!((found.name.as_str(), found.kind.as_deref()), ("kube-ipvs0", Some("dummy")));
        assert!(!found.is_up());

        let nets: BTreeSet<IpNet> = (1..=1000u32)
            .flat_map(|number| {
                let v4 = Ipv4Addr::from(0x0a60_0000 + number);
                let v6 = Ipv6Addr::from(0xfd00 << 112 | u128::from(number));
                [IpAddr::V4(v4), IpAddr::V6(v6)].map(IpNet::from)
            })
            .collect();
        let mut batch = AddressBatch::new();
        nets.iter().for_each(|&net| batch.add(link, net));
        let started = Instant::now();
        interfaces.change_addresses(&mut batch, none).unwrap();
        println!("{} addresses added: {:?}", nets.len(), started.elapsed());
        assert_eq!(interfaces.link_addresses(link).unwrap().into_iter().collect::<BTreeSet<_>>(), nets);

        batch.clear();
        nets.iter().for_each(|&net| batch.delete(link, net));
        let started = Instant::now();
        interfaces.change_addresses(&mut batch, none).unwrap();
        println!("{} addresses deleted: {:?}", nets.len(), started.elapsed());
        assert_eq!(interfaces.link_addresses(link).unwrap(), []);
        assert!(interfaces.delete_link(link).unwrap());
    });
}
