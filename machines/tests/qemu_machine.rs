//! Machines of QEMU: kernel features, and reporting of failures inside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use portcullis_machines::qemu;

/// Returns the output of a command line of plain words, which must succeed.
fn output(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_machine_has_all_kernel_features_of_nodes() {
    qemu::inside(|| {
        let kernel = output("uname -r");
        assert!(kernel.trim_end().ends_with("-cloud-amd64"), "{kernel}");
        assert_eq!(std::thread::available_parallelism().unwrap().get(), 2);

        output("ipvsadm -A --sctp-service 10.96.0.1:80 -s mh");
        output("ipvsadm -a --sctp-service 10.96.0.1:80 -r 10.244.1.1:8080 -m");
        assert!(output("ipvsadm -Sn").contains("-r 10.244.1.1:8080 -m"));
        output("ip link add kube-ipvs0 type dummy");
        for family in ["ip", "ip6", "inet", "arp", "bridge", "netdev"] {
            output(&format!("nft add table {family} here"));
        }
        output("nft add chain inet here nat { type nat hook prerouting priority -100 ; }");
        output("nft add rule inet here nat fib daddr type local sctp dport 80 dnat ip to 10.244.1.1");
        output("nft add flowtable inet here fast { hook ingress priority 0 ; devices = { lo } ; }");
        output("nft add rule inet here nat udp dport 53 queue num 1");
        output("ipset create KUBE-LOOP-BACK hash:ip,port,ip");
        for iptables in ["iptables-nft", "ip6tables-legacy"] {
            output(&format!(
                "{iptables} -t nat -A POSTROUTING -p sctp -m multiport --dports 80 -j MASQUERADE"
            ));
        }
        output(
            "iptables-legacy -t nat -A POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE",
        );
        output("conntrack -L");
        assert!(fs::exists("/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap());

        // SAFETY: no pointers are passed, and the descriptor goes with the machine.
        let sctp = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP) };
        assert!(sctp >= 0, "{}", std::io::Error::last_os_error());
    });
}

#[test]
#[should_panic(expected = "failed: two is not three")]
fn a_failure_inside_fails_the_test() {
    qemu::inside(|| panic!("two is not three"));
}

/// The limit is reached while the machine boots.
#[test]
#[should_panic(expected = "did not end within 2s")]
fn a_test_that_exceeds_its_limit_is_killed() {
    qemu::inside_for(Duration::from_secs(2), || {
        loop {
            std::thread::park();
        }
    });
}
