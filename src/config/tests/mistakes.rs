//! Tests of configuration errors and their messages.

use std::io;
use std::path::Path;

use super::*;

#[test]
fn validation_rules() {
    let rows: &[(&[&str], &[&str])] = &[
        (
            &["--mode=userspace"],
            &["--mode: invalid value \"userspace\": expected iptables, ipvs or nftables"],
        ),
        (
            &["--proxy-mode=kernelspace"],
            &["--proxy-mode: invalid value \"kernelspace\": expected iptables, ipvs or nftables"],
        ),
        (
            &["--iptables-masquerade-bit=32"],
            &["--iptables-masquerade-bit: invalid value 32: expected a bit of the packet mark, from 0 to 31"],
        ),
        (
            &["--iptables-masquerade-bit=-1", "--mode=nftables"],
            &["--iptables-masquerade-bit: invalid value -1: expected a bit of the packet mark, from 0 to 31"],
        ),
        (
            &["--pod-network=ipip", "--pod-network-wiring=macvlan"],
            &[
                "--pod-network: invalid value \"ipip\": expected off, host-gw, vxlan or cross-subnet",
                "--pod-network-wiring: invalid value \"macvlan\": expected ptp or bridge",
            ],
        ),
        (
            &["--pod-network-mtu=1000", "--pod-network-vxlan-id=0", "--pod-network-vxlan-port=65536"],
            &[
                "--pod-network-mtu: invalid value 1000: expected a number of bytes from 1280 to 65535, or 0 for that of the uplink",
                "--pod-network-vxlan-id: invalid value 0: expected a number from 1 to 16777215",
                "--pod-network-vxlan-port: invalid value 65536: expected a UDP port from 1 to 65535",
            ],
        ),
        (
            &["--pod-network-masquerade-exclude-cidrs=10.0.0.1", "--pod-network-cni-conf-dir=net.d"],
            &[
                "--pod-network-masquerade-exclude-cidrs: invalid value \"10.0.0.1\": expected a CIDR such as 10.0.0.0/8 or fd00::/8",
                "--pod-network-cni-conf-dir: invalid value \"net.d\": expected an absolute path of a folder",
            ],
        ),
        (&["--list-jitter=3m"], &["--list-jitter: invalid value 3m0s: expected a duration from 0 to 2m"]),
        (&["--list-jitter=-1s"], &["--list-jitter: invalid value -1s: expected a duration from 0 to 2m"]),
        (
            &["--oom-score-adj=1001"],
            &["--oom-score-adj: invalid value 1001: expected a number from -1000 to 1000"],
        ),
        (
            &["--oom-score-adj=-1001"],
            &["--oom-score-adj: invalid value -1001: expected a number from -1000 to 1000"],
        ),
        (
            &["--config-sync-period=0"],
            &["--config-sync-period: invalid value 0s: expected a duration greater than 0"],
        ),
        (
            &["--iptables-sync-period=0"],
            &["--iptables-sync-period: invalid value 0s: expected a duration greater than 0"],
        ),
        (
            &["--iptables-min-sync-period=-1s"],
            &["--iptables-min-sync-period: invalid value -1s: expected a duration of 0 or more"],
        ),
        (
            &["--iptables-sync-period=1s", "--iptables-min-sync-period=2s"],
            &["--iptables-sync-period: invalid value 1s: expected at least the minimum sync period of 2s"],
        ),
        (&["--iptables-sync-period=0", "--mode=ipvs"], &[]),
        (
            &["--ipvs-sync-period=-1s", "--mode=ipvs"],
            &["--ipvs-sync-period: invalid value -1s: expected a duration greater than 0"],
        ),
        (&["--ipvs-sync-period=-1s"], &[]),
        (
            &["--ipvs-scheduler=fastest", "--mode=ipvs"],
            &[
                "--ipvs-scheduler: invalid value \"fastest\": expected rr, wrr, lc, wlc, lblc, lblcr, dh, sh, mh, sed, nq, fo, ovf or twos",
            ],
        ),
        (&["--ipvs-scheduler=fastest"], &[]),
        (&["--bind-address=node"], &["--bind-address: invalid value \"node\": expected an IP address"]),
        (
            &["--healthz-bind-address=:80"],
            &[
                "--healthz-bind-address: invalid value \":80\": expected an IP address and a port from 1 to 65535, such as 127.0.0.1:80 or [::1]:80",
            ],
        ),
        (&["--metrics-bind-address=::1:0"], &[]),
        (
            &["--metrics-bind-address=1.2.3.4:0"],
            &[
                "--metrics-bind-address: invalid value \"1.2.3.4:0\": expected an IP address and a port from 1 to 65535, such as 127.0.0.1:80 or [::1]:80",
            ],
        ),
        (
            &["--status-page-bind-address=localhost"],
            &[
                "--status-page-bind-address: invalid value \"localhost\": expected an IP address and a port from 1 to 65535, such as 127.0.0.1:80 or [::1]:80",
            ],
        ),
        (
            &["--nodeport-addresses=primary,10.0.0.0/8"],
            &[
                "--nodeport-addresses: invalid value \"primary\": expected either \"primary\" or CIDRs, not both",
            ],
        ),
        (
            &["--nodeport-addresses=10.0.0.0"],
            &[
                "--nodeport-addresses: invalid value \"10.0.0.0\": expected a CIDR such as 10.0.0.0/8 or fd00::/8, \"primary\" or \"localhost\"",
            ],
        ),
        (
            &["--show-hidden-metrics-for-version=1.34"],
            &[
                "--show-hidden-metrics-for-version: invalid value \"1.34\": expected an empty string or the previous minor version, \"1.35\"",
            ],
        ),
        (
            &["--detect-local-mode=clustercidr"],
            &[
                "--detect-local-mode: invalid value \"clustercidr\": expected ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
            ],
        ),
        (
            &["--detect-local-mode=BridgeInterface"],
            &[
                "default of detectLocal.bridgeInterface: invalid value \"\": expected an interface name of 1 to 15 bytes in BridgeInterface mode",
            ],
        ),
        (
            &["--detect-local-mode=InterfaceNamePrefix"],
            &[
                "default of detectLocal.interfaceNamePrefix: invalid value \"\": expected an interface name of 1 to 15 bytes in InterfaceNamePrefix mode",
            ],
        ),
        (
            &["--cluster-cidr=10.0.0.0/8,11.0.0.0/8"],
            &[
                "--cluster-cidr: invalid value \"10.0.0.0/8,11.0.0.0/8\": expected one CIDR, or one of each family such as 10.100.0.0/16,fde4:8dba:82e1::/48",
            ],
        ),
        (
            &["--cluster-cidr=10.0.0.0"],
            &[
                "--cluster-cidr: invalid value \"10.0.0.0\": expected a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
            ],
        ),
        (
            &["--conntrack-max-per-core=-1"],
            &["--conntrack-max-per-core: invalid value -1: expected 0 or more"],
        ),
        (&["--conntrack-min=-1"], &["--conntrack-min: invalid value -1: expected 0 or more"]),
        (
            &["--conntrack-tcp-timeout-established=-1s"],
            &["--conntrack-tcp-timeout-established: invalid value -1s: expected a duration of 0 or more"],
        ),
        (
            &["--conntrack-tcp-timeout-close-wait=-1s"],
            &["--conntrack-tcp-timeout-close-wait: invalid value -1s: expected a duration of 0 or more"],
        ),
        (
            &["--conntrack-udp-timeout=-1s"],
            &["--conntrack-udp-timeout: invalid value -1s: expected a duration of 0 or more"],
        ),
        (
            &["--conntrack-udp-timeout-stream=-1s"],
            &["--conntrack-udp-timeout-stream: invalid value -1s: expected a duration of 0 or more"],
        ),
        (
            &[
                "--mode=ipvs",
                "--ipvs-tcp-timeout=-1s",
                "--ipvs-tcpfin-timeout=-2s",
                "--ipvs-udp-timeout=-3s",
                "--ipvs-exclude-cidrs=a",
            ],
            &[
                "--ipvs-exclude-cidrs: invalid value \"a\": expected a CIDR such as 10.0.0.0/8 or fd00::/8",
                "--ipvs-tcp-timeout: invalid value -1s: expected a duration of 0 or more",
                "--ipvs-tcpfin-timeout: invalid value -2s: expected a duration of 0 or more",
                "--ipvs-udp-timeout: invalid value -3s: expected a duration of 0 or more",
            ],
        ),
        (&["--ipvs-tcp-timeout=-1s", "--ipvs-exclude-cidrs=a"], &[]),
        (&["--kube-api-burst=-1"], &["--kube-api-burst: invalid value -1: expected 0 or more"]),
        (
            &["--hostname-override=  "],
            &["--hostname-override: invalid value \"  \": expected the name of a Node"],
        ),
        (&["--logging-format=xml"], &["--logging-format: invalid value \"xml\": expected text or json"]),
        (&["-v=-1"], &["--v: invalid value -1: expected 0 or more"]),
        (
            &["--vmodule=a=3", "--logging-format=json"],
            &["--vmodule: invalid value \"a=3\": expected none with the json log format"],
        ),
        (
            &["--log-text-split-stream"],
            &[
                "--log-text-split-stream: invalid value true: expected the feature gate LoggingAlphaOptions to be enabled",
            ],
        ),
        (
            &["--log-text-info-buffer-size=1K"],
            &[
                "--log-text-info-buffer-size: invalid value 1K: expected the feature gate LoggingAlphaOptions to be enabled",
            ],
        ),
        (
            &[
                "--log-text-info-buffer-size=1K",
                "--log-text-split-stream",
                "--feature-gates=LoggingAlphaOptions=true",
            ],
            &[],
        ),
        (
            &["--feature-gates=Frob=true"],
            &["--feature-gates: invalid value Frob=true: expected a feature gate of Kubernetes v1.36"],
        ),
        (
            &["--feature-gates=NFTablesProxyMode=false"],
            &[
                "--feature-gates: invalid value NFTablesProxyMode=false: expected true, to which the gate is locked",
            ],
        ),
        (
            &["--feature-gates=AllAlpha"],
            &[
                "--feature-gates: invalid value \"AllAlpha\": expected GATE=true or GATE=false, separated by commas",
            ],
        ),
        (
            &["--manifests=m", "--kubeconfig=k", "--master=u"],
            &[
                "--kubeconfig: invalid value \"k\": expected either manifests or an API server, not both",
                "--master: invalid value \"u\": expected either manifests or an API server, not both",
            ],
        ),
        (
            &["--socket=portcullis.sock"],
            &[
                "--socket: invalid value \"portcullis.sock\": expected an absolute path of a file, of up to 100 bytes",
            ],
        ),
        // All errors, not only the first; an unreadable flag keeps its default.
        (
            &[
                "--oom-score-adj=many",
                "--iptables-sync-period=30",
                "--masquerade-all=maybe",
                "--mode=x",
                "--conntrack-min=-1",
            ],
            &[
                "--oom-score-adj: invalid value \"many\": expected a 32-bit integer",
                "--masquerade-all: invalid value \"maybe\": expected true or false",
                "--iptables-sync-period: invalid value \"30\": expected a duration such as \"30s\", \"1h30m\" or \"500ms\"",
                "--mode: invalid value \"x\": expected iptables, ipvs or nftables",
                "--conntrack-min: invalid value -1: expected 0 or more",
            ],
        ),
    ];
    for (arguments, expected) in rows {
        assert_eq!(errors(&invoke(arguments)), *expected, "{arguments:?}");
    }
}

#[test]
fn errors_in_files_name_the_field_and_the_line() {
    let yaml = format!("{HEADER}mode: x\nbogus: 1\niptables:\n  masqueradeBit: 77\nclusterCIDR: a,b\n");
    assert_eq!(
        errors(&invoke_with_file(&["--config", "f.yaml", "-v=-1"], &yaml)),
        [
            "f.yaml:4: bogus: unknown field",
            "f.yaml:3: mode: invalid value \"x\": expected iptables, ipvs or nftables",
            "f.yaml:7: clusterCIDR: invalid value \"a\": expected a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
            "f.yaml:7: clusterCIDR: invalid value \"b\": expected a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
            "f.yaml:6: iptables.masqueradeBit: invalid value 77: expected a bit of the packet mark, from 0 to 31",
            "--v: invalid value -1: expected 0 or more",
        ]
    );
    let toml = "manifests = \"m\"\n[api-server]\nkubeconfig = \"k\"\n[detect-local]\nmode = \"BridgeInterface\"\n[iptables]\nmasquerade-bit = 77\n";
    assert_eq!(
        errors(&invoke_with_file(&["--config", "f.toml"], toml)),
        [
            "f.toml:3: api-server.kubeconfig: invalid value \"k\": expected either manifests or an API server, not both",
            "default of detect-local.bridge-interface: invalid value \"\": expected an interface name of 1 to 15 bytes in BridgeInterface mode",
            "f.toml:7: iptables.masquerade-bit: invalid value 77: expected a bit of the packet mark, from 0 to 31",
        ]
    );
}

#[test]
fn unusable_files() {
    let arguments = || ["portcullis", "--config", "/none"].iter().map(Into::into);
    let missing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let invocation = Invocation::from_arguments(arguments(), missing).expect("a well-formed command line");
    assert_eq!(errors(&invocation), ["/none: cannot read the configuration file: entity not found"]);
    for (name, text, start) in [
        ("f.yaml", "a: [\n", "f.yaml:"),
        ("f.yaml", "a: 1\n---\nb: 1\n", "f.yaml:3: invalid YAML: more than one document"),
        ("f.toml", "mode = \n", "f.toml:1: invalid TOML: "),
        ("f.toml", "mode = \"ipvs\"\nmode = \"ipvs\"\n", "f.toml:2: invalid TOML: duplicate key"),
    ] {
        let found = errors(&invoke_with_file(&["--config", name], text));
        assert!(found[0].starts_with(start), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

#[test]
fn warnings_for_settings_without_effect() {
    let rows: &[(&[&str], &[&str])] = &[
        (&["-v=2", "--mode=ipvs"], &[]),
        (
            &["--profiling=false"],
            &["--profiling has no effect: there are no Go profiles to serve at /debug/pprof"],
        ),
        (
            &["--boot_id_file=a"],
            &["--boot-id-file has no effect: it comes from a library, and kube-proxy does not use it either"],
        ),
        (
            &["--log-flush-frequency=1s"],
            &["--log-flush-frequency has no effect: Portcullis does not buffer its log"],
        ),
        (
            &["--feature-gates=NFTablesProxyMode=true"],
            &["--feature-gates: the feature gate NFTablesProxyMode is always enabled and need not be set"],
        ),
    ];
    for (arguments, expected) in rows {
        assert_eq!(warnings(&invoke(arguments)), *expected, "{arguments:?}");
    }
    // Spelling out a default causes no warning.
    let spelt_out = include_str!("../../../fixtures/kube-proxy/default-config.yaml");
    assert_eq!(warnings(&invoke_with_file(&["--config=f.yaml"], spelt_out)), [""; 0]);
    let windows = format!("{HEADER}winkernel:\n  enableDSR: true\nportRange: 1-2\n");
    assert_eq!(
        warnings(&invoke_with_file(&["--config=f.yaml"], &windows)),
        [
            "f.yaml:5: portRange has no effect: it is for userspace mode, which kube-proxy no longer has",
            "f.yaml:4: winkernel.enableDSR has no effect: it is for Windows only",
        ]
    );
}
