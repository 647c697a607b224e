//! Machines of user-mode Linux: kernel features, and reporting of failures inside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use portcullis_machines::uml;

/// Returns the output of a command line of plain words, which must succeed.
fn output(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_machine_has_ipvs_and_legacy_iptables() {
    uml::inside(|| {
        assert!(output("uname -a").contains("x86_64") && !output("uname -r").is_empty());
        assert!(fs::read_to_string("/proc/cpuinfo").unwrap().contains("UML"));
        output("ipvsadm -A -t 10.96.0.1:80 -s mh");
        output("ipvsadm -a -t 10.96.0.1:80 -r 10.244.1.1:8080 -m");
        assert!(output("ipvsadm -Sn").contains("-a -t 10.96.0.1:80 -r 10.244.1.1:8080 -m"));
        output("ip link add kube-ipvs0 type dummy");
        output("ipset create KUBE-LOOP-BACK hash:ip,port,ip");
        assert!(output("iptables -V").contains("legacy"));
        output("iptables -t nat -A POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE");
        output("ip6tables -A INPUT -m ipvs --ipvs -j ACCEPT");
        output("conntrack -L");
        output("modprobe ip_vs");
        assert!(std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists());
    });
}

#[test]
#[should_panic(expected = "failed: two is not three")]
fn a_failure_inside_fails_the_test() {
    uml::inside(|| panic!("two is not three"));
}

#[test]
#[should_panic(expected = "the last words")]
fn output_is_reported() {
    uml::inside(|| {
        println!("the last words");
        panic!("for another reason");
    });
}

#[test]
#[should_panic(expected = "did not end within 6s")]
fn a_test_that_exceeds_its_limit_is_killed() {
    uml::inside_for(Duration::from_secs(6), || {
        loop {
            std::thread::park();
        }
    });
}
