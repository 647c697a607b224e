//! The node of a case: its interfaces, sysctls, and commands that ran before the recording.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::services::Case;

/// The sysctls of the recorded node: forwarding, and IPv6 addresses without autoconfiguration and delay.
const SYSCTLS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
];

/// Sets up this network namespace as the node of a case.
pub(crate) fn set_up(case: &Case) {
    for (name, value) in SYSCTLS {
        fs::write(format!("/proc/sys/net/{name}"), value).expect("the kernel has this sysctl");
    }
    set_up_interfaces(case);
    case.host.commands.iter().for_each(|command| run(command));
}

fn set_up_interfaces(case: &Case) {
    let mut batch = String::from("link set lo up\n");
    for (i, interface) in case.host.interfaces.iter().enumerate().filter(|(_, i)| i.name != "lo") {
        let name = &interface.name;
        batch += &format!(
            "link add {name} type veth peer name peer{i}\nlink set peer{i} up\nlink set {name} up\n"
        );
        for address in &interface.addresses {
            let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
            batch += &format!("addr add {address} dev {name}{nodad}\n");
        }
    }
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    ip.stdin.take().expect("it is piped").write_all(batch.as_bytes()).expect("ip reads its batch");
    assert!(ip.wait().expect("it is our child").success(), "{batch}");
}

/// Runs a command line, whose words contain no spaces. Fails if the command does.
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().expect("a command");
    let status = Command::new(program).args(words).status().expect("it runs");
    assert!(status.success(), "{command}: {status}");
}
