//! Tests of the three inputs together: command lines, files, and the resulting configuration.

mod chart_schema;
mod configuration_file;
mod example;
mod files;
mod mistakes;
mod reference;
mod unused;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// Returns an invocation with these arguments; every path reads as `file`.
fn invoke_with_file(arguments: &[&str], file: &str) -> Invocation {
    let arguments = ["portcullis"].iter().chain(arguments).map(Into::into);
    Invocation::from_arguments(arguments, |_: &Path| Ok(file.to_owned())).expect("a well-formed command line")
}

fn invoke(arguments: &[&str]) -> Invocation {
    invoke_with_file(arguments, "")
}

fn config(arguments: &[&str]) -> Config {
    invoke(arguments).config.unwrap_or_else(|errors| panic!("{arguments:?}: {errors}"))
}

fn config_of_yaml(text: &str, arguments: &[&str]) -> Config {
    let arguments: Vec<_> = ["--config", "f.yaml"].iter().chain(arguments).copied().collect();
    invoke_with_file(&arguments, &format!("{HEADER}{text}"))
        .config
        .unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

fn errors(invocation: &Invocation) -> Vec<String> {
    match &invocation.config {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn warnings(invocation: &Invocation) -> Vec<String> {
    invocation.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn only_commands_use_the_credentials_of_kubectl() {
    let kubectl = |arguments: &[&str]| match config(arguments).source {
        Source::ApiServer(api) => api.kubectl,
        Source::Manifests(_) => panic!("an API server"),
    };
    let with = |context: Option<&str>| Some(KubectlCredentials { context: context.map(str::to_owned) });
    let explain = ["explain", "--from", "a", "--to", "b"];
    for (arguments, expected) in [
        (vec![], None),
        (vec!["--once"], None),
        (vec!["cleanup"], None),
        (explain.to_vec(), with(None)),
        ([&explain[..], &["--context", "c"]].concat(), with(Some("c"))),
        (vec!["render", "--context", "c"], with(Some("c"))),
        (vec!["diff", "--context", "c"], with(Some("c"))),
        (vec!["services", "--context", "c"], with(Some("c"))),
        (vec!["policy", "matrix", "--context", "c"], with(Some("c"))),
        (vec!["migrate", "--to", "ipvs", "--context", "c"], with(Some("c"))),
    ] {
        assert_eq!(kubectl(&arguments), expected, "{arguments:?}");
    }
}

#[test]
fn a_context_has_no_meaning_for_manifests() {
    let rejected = errors(&invoke(&["render", "--manifests", "folder", "--context", "c"]));
    assert_eq!(
        rejected,
        ["--context: invalid value \"c\": expected either manifests or an API server, not both"]
    );
}

#[test]
fn defaults_without_any_input() {
    let config = config(&[]);
    assert_eq!(config, Config::default());
    assert_eq!(config.mode, ProxyMode::Iptables);
    assert_eq!(config.masquerade.bit.mark(), 0x4000);
    assert_eq!(
        config.sync,
        SyncPeriods { period: Duration::from_secs(30), min_period: Duration::from_secs(1) }
    );
    assert_eq!(config.conntrack.tcp_established_timeout, Some(Duration::from_secs(86_400)));
    assert_eq!(config.conntrack.udp_timeout, None);
    assert_eq!(config.detect_local, DetectLocalMode::Fixed(DetectLocal::Cidrs([].into())));
    assert!(matches!(config.source, Source::ApiServer(ApiServer { kubeconfig: None, master: None, .. })));
    assert_eq!(invoke(&[]).settings.client_connection.burst, 10);
}

#[test]
fn syntax_of_flags() {
    let verbosity = |arguments: &[&str]| config(arguments).logging.verbosity;
    for arguments in
        [["-v2"].as_slice(), &["-v=2"], &["-v", "2"], &["--v=2"], &["--v", "2"], &["-v=9", "-v=2"]]
    {
        assert_eq!(verbosity(arguments), 2, "{arguments:?}");
    }
    let localhost = |arguments: &[&str]| config(arguments).iptables.localhost_node_ports;
    for (argument, expected) in [("", true), ("=true", true), ("=T", true), ("=false", false), ("=0", false)]
    {
        assert_eq!(
            localhost(&[&format!("--iptables-localhost-nodeports{argument}")]),
            expected,
            "{argument:?}"
        );
    }
    assert_eq!(config(&["--oom-score-adj", "-5"]).oom_score_adj, -5);
    assert_eq!(config(&["--oom_score_adj=0x10"]).oom_score_adj, 16);
    assert_eq!(config(&["--proxy-mode=ipvs"]).mode, ProxyMode::Ipvs);
    assert_eq!(config(&["--mode", "nftables"]).mode, ProxyMode::Nftables);
    let gates = ["--feature-gates=AllAlpha=true,WatchList=false", "--feature-gates", "AllBeta=1"];
    let gates = invoke(&gates).settings.feature_gates;
    assert_eq!(
        gates.iter().map(|(name, on)| (name.as_str(), *on)).collect::<Vec<_>>(),
        [("AllAlpha", true), ("AllBeta", true), ("WatchList", false)]
    );
    let addresses =
        config(&["--nodeport-addresses=10.0.0.0/8,fd00::/8", "--nodeport-addresses", "192.168.0.0/16"]);
    let NodePortAddresses::Cidrs { cidrs, .. } = addresses.node_port_addresses else { panic!("CIDRs") };
    assert_eq!(cidrs.len(), 3);
}

#[test]
fn malformed_command_lines_are_errors() {
    for arguments in [
        ["--frobnicate"].as_slice(),
        &["frobnicate"],
        &["--config"],
        &["--cleanup", "now"],
        &["explain", "--from", "a"],
        &["explain", "--from", "a", "--to", "b", "--family", "ipx"],
        &["policy"],
        &["policy", "matrix", "--external", "x"],
        &["render", "--only-policies", "--family=ipv4"],
    ] {
        let all = ["portcullis"].iter().chain(arguments).map(Into::into);
        let outcome = Invocation::from_arguments(all, |_: &Path| Ok(String::new()));
        assert!(outcome.is_err(), "{arguments:?}");
    }
}

#[test]
fn commands() {
    let daemon = |once, init_only| Command::Daemon(Daemon { once, init_only, force: false });
    let cleanup = |force| Command::Cleanup(Cleanup { force, ..Cleanup::default() });
    let render = |host: Option<&str>, family| {
        Command::Render(Render {
            host: host.map(PathBuf::from),
            family,
            only_policies: false,
            output: OutputFormat::Text,
        })
    };
    let policies =
        Command::Render(Render { host: None, family: None, only_policies: true, output: OutputFormat::Text });
    let lab = |arguments: &[&str]| Command::Lab(arguments.iter().map(Into::into).collect());
    let explain = Explain {
        from: "a".into(),
        to: "b:80".into(),
        probe_timeout: Duration::from_secs(3),
        ..Explain::default()
    };
    let matrix = Policy::Matrix(Matrix {
        namespaces: vec!["a".into()],
        selector: None,
        ports: vec!["80".into()],
        external: Vec::new(),
        family: None,
        no_group: false,
        output: OutputFormat::Text,
    });
    let rows: Vec<(&[&str], Command)> = vec![
        (&[], daemon(false, false)),
        (&["--once"], daemon(true, false)),
        (&["--init-only=true"], daemon(false, true)),
        (&["--cleanup"], cleanup(false)),
        (&["--cleanup", "--force"], cleanup(true)),
        (&["--force"], Command::Daemon(Daemon { force: true, ..Daemon::default() })),
        (&["--cleanup=false"], daemon(false, false)),
        (&["cleanup", "--mode", "ipvs"], cleanup(false)),
        (&["cleanup", "--force"], cleanup(true)),
        (
            &["cleanup", "--dry-run", "-o", "json"],
            Command::Cleanup(Cleanup { dry_run: true, output: OutputFormat::Json, force: false }),
        ),
        (&["--cleanup", "--write-config-to", "a"], Command::WriteConfig("a".into())),
        (&["version"], Command::Version(OutputFormat::Text)),
        (&["--version"], Command::Version(OutputFormat::Text)),
        (&["-V"], Command::Version(OutputFormat::Text)),
        (&["version", "-o", "yaml"], Command::Version(OutputFormat::Yaml)),
        (&["--version=raw"], Command::Version(OutputFormat::Text)),
        (&["render", "--manifests", "m", "--mode=ipvs", "--masquerade_all"], render(None, None)),
        (&["render", "--host", "h", "--family", "ipv6"], render(Some("h"), Some(AddressFamily::Ipv6))),
        (&["explain", "--from", "a", "--to", "b:80"], Command::Explain(explain.clone())),
        (&["explain", "--to=b:80", "--from=a", "--manifests=f", "-o", "text"], Command::Explain(explain)),
        (&["policy", "matrix", "-n", "a", "--port", "80"], Command::Policy(matrix)),
        (&["render", "--only-policies", "--network-policy"], policies),
        (
            &["diff", "--kubeconfig", "k"],
            Command::Diff(Diff { host: None, family: None, output: OutputFormat::Text }),
        ),
        (&["lab"], lab(&[])),
        (&["lab", "--help"], lab(&["--help"])),
        (
            &["lab", "up", "f", "--mode", "ipvs", "--", "-v4"],
            lab(&["up", "f", "--mode", "ipvs", "--", "-v4"]),
        ),
        (&["lab", "exec", "web", "--", "ls", "--a_b"], lab(&["exec", "web", "--", "ls", "--a_b"])),
    ];
    for (arguments, expected) in rows {
        let invocation = invoke(arguments);
        assert_eq!(invocation.command, expected, "{arguments:?}");
        assert!(invocation.config.is_ok(), "{arguments:?}");
    }
}

#[test]
fn sync_periods_are_those_of_the_mode() {
    // (arguments, file, period, minimum period in milliseconds)
    let rows: &[(&[&str], Option<&str>, u64, u64)] = &[
        (&[], None, 30_000, 1_000),
        (&["--mode=ipvs"], None, 30_000, 1_000),
        (&["--mode=nftables"], None, 30_000, 1_000),
        (&["--iptables-sync-period=1m", "--ipvs-sync-period=2m"], None, 60_000, 1_000),
        (&["--iptables-sync-period=1m", "--mode=nftables"], None, 60_000, 1_000),
        (&["--iptables-sync-period=1m", "--ipvs-sync-period=2m", "--mode=ipvs"], None, 120_000, 1_000),
        (&["--iptables-min-sync-period=0"], None, 30_000, 0),
        (&[], Some("mode: iptables"), 30_000, 1_000),
        (&[], Some("mode: ipvs"), 30_000, 0),
        (&[], Some("mode: nftables"), 30_000, 1_000),
        (&[], Some("iptables: {minSyncPeriod: 0s, syncPeriod: 0s}"), 30_000, 1_000),
        (&[], Some("mode: ipvs\nipvs: {minSyncPeriod: 2s, syncPeriod: 5s}"), 5_000, 2_000),
        (&[], Some("mode: nftables\nnftables: {minSyncPeriod: 500ms}\nipvs: {syncPeriod: 1s}"), 30_000, 500),
    ];
    for (arguments, file, period, min_period) in rows {
        let config = match file {
            Some(text) => config_of_yaml(text, arguments),
            None => config(arguments),
        };
        let expected = (Duration::from_millis(*period), Duration::from_millis(*min_period));
        assert_eq!((config.sync.period, config.sync.min_period), expected, "{arguments:?} {file:?}");
    }
}

#[test]
fn masquerade_settings_are_those_of_the_mode() {
    // (arguments, file, all, bit)
    let rows: &[(&[&str], Option<&str>, bool, u8)] = &[
        (&["--masquerade-all", "--iptables-masquerade-bit=3"], None, true, 3),
        (&["--masquerade-all", "--iptables-masquerade-bit=3", "--mode=ipvs"], None, true, 3),
        (&["--masquerade-all", "--iptables-masquerade-bit=3", "--mode=nftables"], None, true, 14),
        (&[], Some("mode: ipvs\niptables: {masqueradeAll: true, masqueradeBit: 0}"), true, 0),
        (&[], Some("mode: nftables\niptables: {masqueradeAll: true, masqueradeBit: 0}"), false, 14),
        (&[], Some("mode: nftables\nnftables: {masqueradeAll: true, masqueradeBit: 31}"), true, 31),
    ];
    for (arguments, file, all, bit) in rows {
        let config = match file {
            Some(text) => config_of_yaml(text, arguments),
            None => config(arguments),
        };
        assert_eq!(
            (config.masquerade.all, config.masquerade.bit.get()),
            (*all, *bit),
            "{arguments:?} {file:?}"
        );
    }
}

#[test]
fn listening_addresses() {
    let rows: &[(&[&str], Option<&str>, Option<&str>)] = &[
        (&[], Some("0.0.0.0:10256"), Some("127.0.0.1:10249")),
        (&["--bind-address=::"], Some("0.0.0.0:10256"), Some("127.0.0.1:10249")),
        (
            &["--healthz-bind-address=10.0.0.1", "--metrics-bind-address=::"],
            Some("10.0.0.1:10256"),
            Some("[::]:10249"),
        ),
        (
            &["--healthz-bind-address=10.0.0.1", "--healthz-port=99"],
            Some("10.0.0.1:99"),
            Some("127.0.0.1:10249"),
        ),
        (&["--healthz-port=0", "--metrics-port=0"], None, None),
        (&["--healthz-bind-address=", "--metrics-bind-address", ""], None, None),
        (&["--metrics-bind-address=[::1]:80"], Some("0.0.0.0:10256"), Some("[::1]:80")),
    ];
    let pages: &[(&[&str], Option<&str>)] = &[
        (&[], None),
        (&["--status-page-bind-address=127.0.0.1"], Some("127.0.0.1:10262")),
        (&["--status-page-bind-address=[::1]:80"], Some("[::1]:80")),
        (&["--status-page-bind-address="], None),
    ];
    for (arguments, page) in pages {
        let address = config(arguments).status_page_bind_address;
        assert_eq!(address.map(|address| address.to_string()).as_deref(), *page, "{arguments:?}");
    }
    for (arguments, healthz, metrics) in rows {
        let config = config(arguments);
        let shown = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
        assert_eq!(shown(config.healthz_bind_address).as_deref(), *healthz, "{arguments:?}");
        assert_eq!(shown(config.metrics_bind_address).as_deref(), *metrics, "{arguments:?}");
    }
}

#[test]
fn detect_local_modes() {
    let cidrs = |v4: Option<&str>, v6: Option<&str>| {
        let nets = v4.into_iter().chain(v6);
        DetectLocalMode::Fixed(DetectLocal::Cidrs(nets.map(|net| net.parse().expect("a network")).collect()))
    };
    let name = |name| InterfaceName::new(name).expect("a name");
    let rows: &[(&[&str], DetectLocalMode)] = &[
        (&["--cluster-cidr=10.244.7.7/16"], cidrs(Some("10.244.0.0/16"), None)),
        (&["--cluster-cidr=fd00::/48, 10.0.0.0/8"], cidrs(Some("10.0.0.0/8"), Some("fd00::/48"))),
        (&["--detect-local-mode=NodeCIDR", "--cluster-cidr=nonsense"], DetectLocalMode::NodeCidr),
        (&["--pod-network=vxlan"], DetectLocalMode::NodeCidr),
        (&["--pod-network=off"], cidrs(None, None)),
        (&["--pod-network=host-gw", "--cluster-cidr=10.244.0.0/16"], cidrs(Some("10.244.0.0/16"), None)),
        (&["--pod-network=host-gw", "--detect-local-mode=ClusterCIDR"], cidrs(None, None)),
        (
            &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"],
            DetectLocalMode::Fixed(DetectLocal::BridgeInterface(name("cni0"))),
        ),
        (
            &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"],
            DetectLocalMode::Fixed(DetectLocal::InterfaceNamePrefix(name("veth"))),
        ),
    ];
    for (arguments, expected) in rows {
        assert_eq!(config(arguments).detect_local, *expected, "{arguments:?}");
    }
}

#[test]
fn flag_values_are_those_of_the_command_line_or_the_defaults() {
    let line = [
        "portcullis",
        "--mode",
        "ipvs",
        "-v",
        "4",
        "--once",
        "--feature_gates=AllBeta=true",
        "--nodeport-addresses=a",
        "--nodeport-addresses",
        "b,c",
    ];
    let values = Invocation::flag_values(line.map(Into::into));
    let value = |flag: &str| values.iter().find(|(name, _)| name == flag).map(|(_, value)| value.as_str());
    let rows = [
        ("mode", Some("ipvs")),
        ("proxy-mode", Some("")),
        ("v", Some("4")),
        ("once", Some("true")),
        ("cleanup", Some("false")),
        ("feature-gates", Some("AllBeta=true")),
        ("nodeport-addresses", Some("a,b,c")),
        ("conntrack-min", Some("131072")),
        ("healthz-port", None),
    ];
    for (flag, expected) in rows {
        assert_eq!(value(flag), expected, "{flag}");
    }
    assert!(values.is_sorted());
}

#[test]
fn written_files_lose_no_setting() {
    let read = |line: &[&str]| {
        let line = std::iter::once("portcullis").chain(line.iter().copied());
        Invocation::from_arguments(line.map(Into::into), |path| std::fs::read_to_string(path))
            .expect("a command line")
    };
    let lines: [&[&str]; 4] = [
        &["--network-policy", "--network-policy-unknown-pods=deny", "--mode=nftables"],
        &["--master=https://10.0.0.1", "--mode", "ipvs", "--ipvs-exclude-cidrs=10.0.0.0/8"],
        &["--manifests=/etc/m", "--nodeport-addresses=primary,localhost", "--feature-gates=AllBeta=true"],
        &["--iptables-sync-period=45s", "--conntrack-min=7", "--cluster-cidr=10.0.0.0/8,fd00::/8", "-v4"],
    ];
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    for (line, name) in lines.into_iter().flat_map(|line| [(line, "written.toml"), (line, "written.yaml")]) {
        let file = folder.path().join(name);
        let invocation = read(line);
        let config = invocation.config.as_ref().expect("it can be used");
        let (text, warning) = invocation.configuration_for(&file);
        std::fs::write(&file, &text).expect("it can be written");
        let again = read(&["--config", file.to_str().expect("a path of text")]);
        assert_eq!(again.config.as_ref().expect("it can be read back"), config, "{line:?}:\n{text}");
        // If every setting has a field, the file is a KubeProxyConfiguration.
        let lost = name.ends_with("yaml") && !line.contains(&"--iptables-sync-period=45s");
        assert_eq!(warning.is_some(), lost, "{line:?}: {warning:?}");
        let setting = line[0].trim_start_matches('-').split('=').next().expect("a name");
        assert!(warning.is_none_or(|warning| warning.to_string().contains(setting)), "{line:?}");
    }
}
