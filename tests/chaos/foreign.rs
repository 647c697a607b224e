//! Changes by other processes to the program's rules.

use super::random::Random;
use super::scenario::Tools;
use super::step::Mode;

/// Commands of `nft` on the table of Services; `{family}` is `ip` or `ip6`.
const SERVICE_TABLE: [&str; 18] = [
    "flush ruleset",
    "delete table {family} portcullis",
    "flush table {family} portcullis",
    "add table {family} portcullis { flags dormant; }",
    "flush chain {family} portcullis {chain}",
    "insert rule {family} portcullis {chain} drop",
    "insert rule {family} portcullis {chain} accept",
    "add rule {family} portcullis {chain} counter return",
    "insert rule {family} portcullis {chain} jump { counter; }",
    "insert rule {family} portcullis {chain} tcp dport { 80, 81 } counter log prefix \"x\" drop",
    "flush set {family} portcullis {set}",
    "flush map {family} portcullis {map}",
    "add set {family} portcullis another { type ether_addr; }",
    "add quota {family} portcullis another over 10 mbytes",
    "add chain {family} portcullis another { type filter hook input priority 0; policy drop; }",
    "add chain {family} portcullis another; add rule {family} portcullis another jump {chain}",
    "add element {family} portcullis {set} { * }",
    "rename chain {family} portcullis {chain} another",
];

/// Commands of `nft` on the table of policies.
const POLICY_TABLE: [&str; 10] = [
    "delete table inet portcullis-policy",
    "flush table inet portcullis-policy",
    "flush chain inet portcullis-policy {chain}",
    "insert rule inet portcullis-policy {chain} accept",
    "insert rule inet portcullis-policy {chain} drop",
    "flush set inet portcullis-policy {set}",
    "flush map inet portcullis-policy {map}",
    "add element inet portcullis-policy {map} { * : drop }",
    "add element inet portcullis-policy {map} { * : 0:1 }",
    "add map inet portcullis-policy another { type ipv4_addr : verdict; }",
];

/// Arguments of `iptables` or `ip6tables`; several commands are separated by `;`.
const IPTABLES: [&str; 11] = [
    "-t nat -F",
    "-t filter -F",
    "-t nat -F {chain}",
    "-t filter -F {chain}",
    "-t nat -D PREROUTING 1",
    "-t nat -D OUTPUT 1",
    "-t filter -D FORWARD 1",
    "-t nat -D {chain} 1",
    "-t nat -I {chain} -j RETURN",
    "-t nat -F; -t nat -X",
    "-t filter -F; -t filter -X",
];

const IPVS: [&str; 8] = [
    "ipvsadm -C",
    "ipvsadm -D -t 10.96.0.10:80",
    "ipvsadm -A -t 10.96.0.10:99 -s rr",
    "ipset flush KUBE-CLUSTER-IP",
    "ipset flush KUBE-NODE-PORT-TCP",
    "ip addr flush dev kube-ipvs0",
    "ip addr del 10.96.0.10/32 dev kube-ipvs0",
    "ip link del kube-ipvs0",
];

/// Returns a command line for what the mode programs.
pub(crate) fn random_command(random: &mut Random, mode: Mode, tools: Tools, policies: bool) -> String {
    if policies && random.chance(35) {
        return format!("nft {}", random.pick(&POLICY_TABLE));
    }
    match mode {
        Mode::Nftables => {
            let family = random.pick(&["ip", "ip", "ip6"]);
            format!("nft {}", random.pick(&SERVICE_TABLE).replace("{family}", family))
        }
        Mode::Ipvs if random.chance(60) => random.pick(&IPVS).to_owned(),
        Mode::Iptables | Mode::Ipvs => {
            let family = random.pick(&["iptables", "iptables", "ip6tables"]);
            let tool = match tools {
                Tools::Nft => format!("{family}-nft"),
                Tools::Legacy => format!("{family}-legacy"),
            };
            let commands =
                random.pick(&IPTABLES).split("; ").map(|arguments| format!("{tool} -w {arguments}"));
            commands.collect::<Vec<_>>().join(" && ")
        }
    }
}
