//! Virtual servers of IPVS mode, as `ipvsadm` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use portcullis_lab::{NetNs, Protocol};

/// The real servers with a weight above 0, by virtual server.
#[derive(Debug)]
pub(crate) struct VirtualServers(pub(crate) BTreeMap<(SocketAddr, Protocol), BTreeSet<SocketAddr>>);

impl VirtualServers {
    pub(crate) fn read(netns: &NetNs) -> Self {
        let output = netns.command("ipvsadm").arg("-Sn").output().expect("ipvsadm is installed");
        assert!(output.status.success(), "ipvsadm: {}", String::from_utf8_lossy(&output.stderr));
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(text: &str) -> Self {
        let mut servers: BTreeMap<(SocketAddr, Protocol), BTreeSet<SocketAddr>> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [verb, protocol, server, rest @ ..] = &words[..] else { continue };
            let protocol = match *protocol {
                "-t" => Protocol::Tcp,
                "-u" => Protocol::Udp,
                "--sctp-service" => Protocol::Sctp,
                _ => continue,
            };
            let Ok(server) = server.parse() else { continue };
            let real = servers.entry((server, protocol)).or_default();
            let argument = |option| {
                rest.iter().position(|word| *word == option).and_then(|at| rest.get(at + 1)).copied()
            };
            if *verb == "-a" && argument("-w") != Some("0") {
                real.extend(argument("-r").and_then(|address| address.parse::<SocketAddr>().ok()));
            }
        }
        VirtualServers(servers)
    }
}

pub(crate) mod tests {
    use super::*;

    pub(crate) fn terminating_real_servers_do_not_count() {
        let text = "-A -t 10.96.0.10:80 -s rr\n-a -t 10.96.0.10:80 -r 10.244.1.20:8080 -m -w 1\n\
                    -a -t 10.96.0.10:80 -r 10.244.1.21:8080 -m -w 0\n-A -u [fd00::1]:53 -s rr\n\
                    -A --sctp-service 10.96.0.10:3868 -s rr\n";
        let VirtualServers(servers) = VirtualServers::parse(text);
        let real = BTreeSet::from(["10.244.1.20:8080".parse().unwrap()]);
        assert_eq!(servers[&("10.96.0.10:80".parse().unwrap(), Protocol::Tcp)], real);
        assert_eq!(servers[&("[fd00::1]:53".parse().unwrap(), Protocol::Udp)], BTreeSet::new());
        assert_eq!(servers[&("10.96.0.10:3868".parse().unwrap(), Protocol::Sctp)], BTreeSet::new());
    }
}
