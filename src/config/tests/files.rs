//! Tests of configuration files, and of flags given together with a file.

use std::path::Path;

use super::*;

#[test]
fn flags_with_a_kube_proxy_file() {
    let file = "mode: ipvs\nhostnameOverride: from-file\nlogging:\n  verbosity: 1\nclientConnection:\n  kubeconfig: /k\n";
    let arguments = [
        "--config=f.yaml",
        "--proxy-mode=nftables",
        "--hostname-override= From-Flag ",
        "-v=4",
        "--logging-format=json",
        "--master=https://m",
        "--oom-score-adj=1",
        "--masquerade-all",
        "--iptables-sync-period=1m",
        "--healthz-port=0",
    ];
    let invocation = invoke_with_file(&arguments, &format!("{HEADER}{file}"));
    let config = invocation.config.as_ref().expect("a configuration");
    assert_eq!(config.mode, ProxyMode::Ipvs);
    assert_eq!(config.hostname_override.as_deref(), Some("from-flag"));
    assert_eq!(config.logging.verbosity, 4);
    assert_eq!(config.logging.format, LogFormat::Json);
    assert_eq!(
        (config.oom_score_adj, config.masquerade.all, config.healthz_bind_address.is_some()),
        (-999, false, true)
    );
    let Source::ApiServer(server) = &config.source else { panic!("an API server") };
    assert_eq!(
        (server.kubeconfig.as_deref(), server.master.as_deref()),
        (Some(Path::new("/k")), Some("https://m"))
    );
    assert_eq!(
        warnings(&invocation),
        [
            "--proxy-mode is ignored because of --config; set mode in f.yaml",
            "--oom-score-adj is ignored because of --config; set oomScoreAdj in f.yaml",
            "--masquerade-all is ignored because of --config; set iptables.masqueradeAll in f.yaml",
            "--iptables-sync-period is ignored because of --config; set iptables.syncPeriod in f.yaml",
            "--healthz-port is ignored because of --config; remove one of the two",
        ]
    );
}

#[test]
fn own_flags_override_a_file_and_in_subcommands_all_flags_do() {
    let yaml = "mode: ipvs\nclientConnection:\n  kubeconfig: /k\n";
    let daemon = config_of_yaml(yaml, &["--mode=nftables", "--manifests=m"]);
    assert_eq!((daemon.mode, daemon.source), (ProxyMode::Nftables, Source::Manifests("m".into())));
    let arguments =
        ["render", "--config=f.yaml", "--proxy-mode=iptables", "--masquerade-all", "--oom-score-adj=1"];
    let invocation = invoke_with_file(&arguments, &format!("{HEADER}{yaml}"));
    assert_eq!(warnings(&invocation), [""; 0]);
    let config = invocation.config.expect("a configuration");
    assert_eq!((config.mode, config.masquerade.all, config.oom_score_adj), (ProxyMode::Iptables, true, 1));
}

#[test]
fn kube_proxys_own_file_gives_kube_proxys_defaults() {
    let recorded = include_str!("../../../fixtures/kube-proxy/default-config.yaml");
    let invocation = invoke_with_file(&["--config=f.yaml", "--write-config-to=out.yaml"], recorded);
    assert_eq!(invocation.command, Command::WriteConfig("out.yaml".into()));
    assert_eq!(invocation.kube_proxy_configuration(), recorded);
    assert_eq!(invocation.config.expect("a configuration"), Config::default());
    assert_eq!(invoke(&["--write-config-to=out.yaml"]).kube_proxy_configuration(), recorded);
}

#[test]
fn both_formats_give_the_same_configuration() {
    let yaml = "mode: nftables\nnftables: {masqueradeAll: true, syncPeriod: 1m30s}\nclusterCIDR: 10.0.0.0/8,fd00::/8\n\
        nodePortAddresses: [primary]\nfeatureGates: {AllBeta: false}\nclientConnection: {kubeconfig: /k}\nlogging: {format: json, verbosity: 3}\n";
    let toml = "mode = 'nftables'\nnodeport-addresses = ['primary']\n[feature-gates]\nAllBeta = false\n[nftables]\nmasquerade-all = true\nsync-period = '1m30s'\n\
        [detect-local]\ncluster-cidrs = ['10.0.0.0/8', 'fd00::/8']\n[api-server]\nkubeconfig = '/k'\n[logging]\nformat = 'json'\nverbosity = 3\n";
    let of_toml = invoke_with_file(&["--config=f.toml"], toml).config.expect("a configuration");
    assert_eq!(of_toml, config_of_yaml(yaml, &[]));
    assert_ne!(of_toml, Config::default());
}
