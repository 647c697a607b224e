//! What is wrong with a configuration, and how it is said.

use std::io;
use std::path::Path;

use super::*;

#[test]
fn every_rule_of_validation() {
    let rows: &[(&[&str], &[&str])] = &[
        (
            &["--mode=userspace"],
            &["--mode: \"userspace\" is not possible: expected iptables, ipvs or nftables"],
        ),
        (
            &["--proxy-mode=kernelspace"],
            &["--proxy-mode: \"kernelspace\" is not possible: expected iptables, ipvs or nftables"],
        ),
        (
            &["--iptables-masquerade-bit=32"],
            &[
                "--iptables-masquerade-bit: 32 is not possible: expected a bit of the packet mark, from 0 to 31",
            ],
        ),
        (
            &["--iptables-masquerade-bit=-1", "--mode=nftables"],
            &[
                "--iptables-masquerade-bit: -1 is not possible: expected a bit of the packet mark, from 0 to 31",
            ],
        ),
        (&["--oom-score-adj=1001"], &["--oom-score-adj: 1001 is not possible: expected from -1000 to 1000"]),
        (
            &["--oom-score-adj=-1001"],
            &["--oom-score-adj: -1001 is not possible: expected from -1000 to 1000"],
        ),
        (
            &["--config-sync-period=0"],
            &["--config-sync-period: 0s is not possible: expected a duration of more than 0"],
        ),
        (
            &["--iptables-sync-period=0"],
            &["--iptables-sync-period: 0s is not possible: expected a duration of more than 0"],
        ),
        (
            &["--iptables-min-sync-period=-1s"],
            &["--iptables-min-sync-period: -1s is not possible: expected a duration of 0 or more"],
        ),
        (
            &["--iptables-sync-period=1s", "--iptables-min-sync-period=2s"],
            &["--iptables-sync-period: 1s is not possible: expected at least the minimum period of 2s"],
        ),
        (&["--iptables-sync-period=0", "--mode=ipvs"], &[]),
        (
            &["--ipvs-sync-period=-1s", "--mode=ipvs"],
            &["--ipvs-sync-period: -1s is not possible: expected a duration of more than 0"],
        ),
        (&["--ipvs-sync-period=-1s"], &[]),
        (
            &["--ipvs-scheduler=fastest", "--mode=ipvs"],
            &[
                "--ipvs-scheduler: \"fastest\" is not possible: expected rr, wrr, lc, wlc, lblc, lblcr, dh, sh, mh, sed, nq, fo, ovf or twos",
            ],
        ),
        (&["--ipvs-scheduler=fastest"], &[]),
        (&["--bind-address=node"], &["--bind-address: \"node\" is not possible: expected an IP address"]),
        (
            &["--healthz-bind-address=:80"],
            &[
                "--healthz-bind-address: \":80\" is not possible: expected an IP address and a port from 1 to 65535, as 127.0.0.1:80 or [::1]:80",
            ],
        ),
        (&["--metrics-bind-address=::1:0"], &[]),
        (
            &["--metrics-bind-address=1.2.3.4:0"],
            &[
                "--metrics-bind-address: \"1.2.3.4:0\" is not possible: expected an IP address and a port from 1 to 65535, as 127.0.0.1:80 or [::1]:80",
            ],
        ),
        (
            &["--nodeport-addresses=primary,10.0.0.0/8"],
            &[
                "--nodeport-addresses: \"primary\" is not possible: expected either \"primary\" or CIDRs, not both",
            ],
        ),
        (
            &["--nodeport-addresses=10.0.0.0"],
            &[
                "--nodeport-addresses: \"10.0.0.0\" is not possible: expected a CIDR such as 10.0.0.0/8 or fd00::/8, \"primary\" or \"localhost\"",
            ],
        ),
        (
            &["--show-hidden-metrics-for-version=1.34"],
            &[
                "--show-hidden-metrics-for-version: \"1.34\" is not possible: expected nothing or the previous minor version, \"1.35\"",
            ],
        ),
        (
            &["--detect-local-mode=clustercidr"],
            &[
                "--detect-local-mode: \"clustercidr\" is not possible: expected ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
            ],
        ),
        (
            &["--detect-local-mode=BridgeInterface"],
            &[
                "default of detectLocal.bridgeInterface: \"\" is not possible: expected an interface's name, of 1 to 15 bytes, for the mode BridgeInterface",
            ],
        ),
        (
            &["--detect-local-mode=InterfaceNamePrefix"],
            &[
                "default of detectLocal.interfaceNamePrefix: \"\" is not possible: expected an interface's name, of 1 to 15 bytes, for the mode InterfaceNamePrefix",
            ],
        ),
        (
            &["--cluster-cidr=10.0.0.0/8,11.0.0.0/8"],
            &[
                "--cluster-cidr: \"10.0.0.0/8,11.0.0.0/8\" is not possible: expected one CIDR, or one of each family such as 10.100.0.0/16,fde4:8dba:82e1::/48",
            ],
        ),
        (
            &["--cluster-cidr=10.0.0.0"],
            &[
                "--cluster-cidr: \"10.0.0.0\" is not possible: expected a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
            ],
        ),
        (
            &["--conntrack-max-per-core=-1"],
            &["--conntrack-max-per-core: -1 is not possible: expected 0 or more"],
        ),
        (&["--conntrack-min=-1"], &["--conntrack-min: -1 is not possible: expected 0 or more"]),
        (
            &["--conntrack-tcp-timeout-established=-1s"],
            &["--conntrack-tcp-timeout-established: -1s is not possible: expected a duration of 0 or more"],
        ),
        (
            &["--conntrack-tcp-timeout-close-wait=-1s"],
            &["--conntrack-tcp-timeout-close-wait: -1s is not possible: expected a duration of 0 or more"],
        ),
        (
            &["--conntrack-udp-timeout=-1s"],
            &["--conntrack-udp-timeout: -1s is not possible: expected a duration of 0 or more"],
        ),
        (
            &["--conntrack-udp-timeout-stream=-1s"],
            &["--conntrack-udp-timeout-stream: -1s is not possible: expected a duration of 0 or more"],
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
                "--ipvs-exclude-cidrs: \"a\" is not possible: expected a CIDR such as 10.0.0.0/8 or fd00::/8",
                "--ipvs-tcp-timeout: -1s is not possible: expected a duration of 0 or more",
                "--ipvs-tcpfin-timeout: -2s is not possible: expected a duration of 0 or more",
                "--ipvs-udp-timeout: -3s is not possible: expected a duration of 0 or more",
            ],
        ),
        (&["--ipvs-tcp-timeout=-1s", "--ipvs-exclude-cidrs=a"], &[]),
        (&["--kube-api-burst=-1"], &["--kube-api-burst: -1 is not possible: expected 0 or more"]),
        (
            &["--hostname-override=  "],
            &["--hostname-override: \"  \" is not possible: expected the name of a Node"],
        ),
        (&["--logging-format=xml"], &["--logging-format: \"xml\" is not possible: expected text or json"]),
        (&["-v=-1"], &["--v: -1 is not possible: expected 0 or more"]),
        (
            &["--vmodule=a=3", "--logging-format=json"],
            &["--vmodule: a level by source file is not possible: expected none with the log format json"],
        ),
        (
            &["--log-text-split-stream"],
            &[
                "--log-text-split-stream: true is not possible: expected the feature gate LoggingAlphaOptions to be on as well",
            ],
        ),
        (
            &["--log-text-info-buffer-size=1K"],
            &[
                "--log-text-info-buffer-size: 1K is not possible: expected the feature gate LoggingAlphaOptions to be on as well",
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
            &["--feature-gates: Frob=true is not possible: expected a feature gate of Kubernetes v1.36"],
        ),
        (
            &["--feature-gates=NFTablesProxyMode=false"],
            &[
                "--feature-gates: NFTablesProxyMode=false is not possible: expected true: the gate can no longer be turned off",
            ],
        ),
        (
            &["--feature-gates=AllAlpha"],
            &[
                "--feature-gates: \"AllAlpha\" is not possible: expected GATE=true or GATE=false, separated by commas",
            ],
        ),
        (
            &["--manifests=m", "--kubeconfig=k", "--master=u"],
            &[
                "--kubeconfig: \"k\" is not possible: expected either manifests or an API server, not both",
                "--master: \"u\" is not possible: expected either manifests or an API server, not both",
            ],
        ),
        // All that is wrong, not only the first; a flag that can't be read leaves its default.
        (
            &[
                "--oom-score-adj=many",
                "--iptables-sync-period=30",
                "--masquerade-all=maybe",
                "--mode=x",
                "--conntrack-min=-1",
            ],
            &[
                "--oom-score-adj: \"many\" is not possible: expected a whole number of 32 bits",
                "--masquerade-all: \"maybe\" is not possible: expected true or false",
                "--iptables-sync-period: \"30\" is not possible: expected a duration such as \"30s\", \"1h30m\" or \"500ms\"",
                "--mode: \"x\" is not possible: expected iptables, ipvs or nftables",
                "--conntrack-min: -1 is not possible: expected 0 or more",
            ],
        ),
    ];
    for (arguments, expected) in rows {
        assert_eq!(errors(&invoke(arguments)), *expected, "{arguments:?}");
    }
}

#[test]
fn mistakes_in_files_name_the_field_and_the_line() {
    let yaml = format!("{HEADER}mode: x\nbogus: 1\niptables:\n  masqueradeBit: 77\nclusterCIDR: a,b\n");
    assert_eq!(
        errors(&invoke_beside(&["--config", "f.yaml", "-v=-1"], &yaml)),
        [
            "f.yaml:4: bogus: no such field",
            "f.yaml:3: mode: \"x\" is not possible: expected iptables, ipvs or nftables",
            "f.yaml:7: clusterCIDR: \"a\" is not possible: expected a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
            "f.yaml:7: clusterCIDR: \"b\" is not possible: expected a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
            "f.yaml:6: iptables.masqueradeBit: 77 is not possible: expected a bit of the packet mark, from 0 to 31",
            "--v: -1 is not possible: expected 0 or more",
        ]
    );
    let toml = "manifests = \"m\"\n[api-server]\nkubeconfig = \"k\"\n[detect-local]\nmode = \"BridgeInterface\"\n[iptables]\nmasquerade-bit = 77\n";
    assert_eq!(
        errors(&invoke_beside(&["--config", "f.toml"], toml)),
        [
            "f.toml:3: api-server.kubeconfig: \"k\" is not possible: expected either manifests or an API server, not both",
            "default of detect-local.bridge-interface: \"\" is not possible: expected an interface's name, of 1 to 15 bytes, for the mode BridgeInterface",
            "f.toml:7: iptables.masquerade-bit: 77 is not possible: expected a bit of the packet mark, from 0 to 31",
        ]
    );
}

#[test]
fn files_that_cannot_be_used_at_all() {
    let arguments = || ["portcullis", "--config", "/none"].iter().map(Into::into);
    let missing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let invocation = Invocation::from_arguments(arguments(), missing).expect("a well-formed command line");
    assert_eq!(errors(&invocation), ["/none: cannot read the configuration file: entity not found"]);
    for (name, text, start) in [
        ("f.yaml", "a: [\n", "f.yaml:"),
        ("f.yaml", "a: 1\n---\nb: 1\n", "f.yaml:3: not valid YAML: a second document"),
        ("f.toml", "mode = \n", "f.toml:1: not valid TOML: "),
        ("f.toml", "mode = \"ipvs\"\nmode = \"ipvs\"\n", "f.toml:2: not valid TOML: duplicate key"),
    ] {
        let found = errors(&invoke_beside(&["--config", name], text));
        assert!(found[0].starts_with(start), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

#[test]
fn warnings_for_what_has_no_effect() {
    let rows: &[(&[&str], &[&str])] = &[
        (&["-v=2", "--mode=ipvs"], &[]),
        (
            &["--profiling=false"],
            &["--profiling has no effect: there are no Go profiles to serve at /debug/pprof"],
        ),
        (
            &["--boot_id_file=a"],
            &["--boot-id-file has no effect: kube-proxy has it from a library and does not use it either"],
        ),
        (
            &["--log-flush-frequency=1s"],
            &["--log-flush-frequency has no effect: Portcullis does not buffer its log"],
        ),
        (
            &["--feature-gates=NFTablesProxyMode=true"],
            &["--feature-gates: the feature gate NFTablesProxyMode is always on and need not be given"],
        ),
    ];
    for (arguments, expected) in rows {
        assert_eq!(warnings(&invoke(arguments)), *expected, "{arguments:?}");
    }
    // Defaults that are spelt out are no reason for a warning.
    let spelt_out = include_str!("../../../fixtures/kube-proxy/default-config.yaml");
    assert_eq!(warnings(&invoke_beside(&["--config=f.yaml"], spelt_out)), [""; 0]);
    let windows = format!("{HEADER}winkernel:\n  enableDSR: true\nportRange: 1-2\n");
    assert_eq!(
        warnings(&invoke_beside(&["--config=f.yaml"], &windows)),
        [
            "f.yaml:5: portRange has no effect: it was for a mode that kube-proxy no longer has",
            "f.yaml:4: winkernel.enableDSR has no effect: it is for Windows",
        ]
    );
}
