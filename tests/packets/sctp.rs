//! SCTP: by its rules where the kernel has no SCTP sockets, as this one may not.

use std::io;

use crate::bed::Setup;
use crate::tools::Flavour;

const IPPROTO_SCTP: i32 = 132;

/// Why no SCTP socket can be had, if none can.
fn missing_sockets() -> Option<io::Error> {
    // SAFETY: no pointers are passed; a descriptor that comes is closed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SCTP) };
    if fd < 0 {
        return Some(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    unsafe { libc::close(fd) };
    None
}

#[test]
fn sctp_by_its_rules_alone_since_the_lab_has_no_sctp_servers() {
    match missing_sockets() {
        Some(error) => eprintln!("NO SCTP PACKET IS SENT: this kernel has no SCTP sockets ({error})"),
        None => eprintln!("NO SCTP PACKET IS SENT: this kernel could, but the lab's pods do not speak SCTP"),
    }
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let bed = Setup::of("sctp.yaml").flavour(flavour).up();
        let plan = bed.lab.plan();
        let ips = |service: &str| plan.service(service).unwrap().spec.clone().unwrap().cluster_ips.unwrap();
        for (family, tool) in ["iptables", "ip6tables"].into_iter().enumerate() {
            let nat = bed.rules("node-1", tool, "nat");
            let filter = bed.rules("node-1", tool, "filter");
            let prefix = [32, 128][family];
            let has = |rules: &str, words: &[&str]| {
                let count = rules.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
                assert!(count > 0, "{flavour:?} {tool}: no rule has {words:?}:\n{rules}");
                count
            };
            let (tunnel, none) = (&ips("tunnel")[family], &ips("no-tunnel")[family]);
            has(
                &nat,
                &[
                    "-A KUBE-SERVICES",
                    &format!("-d {tunnel}/{prefix}"),
                    "-p sctp",
                    "--dport 9900",
                    "-j KUBE-SVC-",
                ],
            );
            has(&nat, &["-A KUBE-NODEPORTS", "-p sctp", "--dport 30099", "-j KUBE-EXT-"]);
            has(
                &filter,
                &["-A KUBE-SERVICES", &format!("-d {none}/{prefix}"), "-p sctp", "--dport 9901", "-j REJECT"],
            );
            let endpoints = has(&nat, &["-A KUBE-SEP-", "-p sctp", "-j DNAT", ":9000"]);
            assert_eq!(endpoints, 2, "{flavour:?} {tool}: a rule for each pod");
        }
    }
}
