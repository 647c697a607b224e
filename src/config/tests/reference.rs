//! `docs/settings.md`, generated from the table of settings; `make bless` regenerates it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::generated_docs::assert_current;

use super::super::setting::{Setting, WithConfigFile};
use super::super::setting_table::{SUBJECTS, settings};
use super::super::settings::Settings;

const HEAD: &str = "\
# Settings

All settings, with their names as a flag, in a `KubeProxyConfiguration` (YAML or JSON) and in Portcullis' own TOML, of
which [config.example.toml](../config.example.toml) is a complete example. `--config` takes either kind of file. This page
is generated from the table of settings in the code.

- **Default**: the value of a setting that is not given; an empty cell means empty, 0 or off. Durations are written as in
  Go: `1h30m`, `500ms`.
- Flags are *ignored if `--config` is given*, as in kube-proxy, with a warning, except those marked with **+**, which
  override the file. In subcommands (`render`, `diff`, …) every flag overrides the file.
- In flag names, `_` is equivalent to `-`. A boolean flag takes its value after `=`: `--masquerade-all=false`.
- In a `KubeProxyConfiguration`, zero means the default in fields marked with **°**.
- An unknown field is an error, which suggests the field with the most similar name.
";

const TAIL: &str = "
## Other flags and environment variables

`--version` prints the version, `--help` (`-h`) the help. The environment variable `RUST_LOG` selects log levels by module
and overrides `-v`. Without a kubeconfig, `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` are the address of the
API server.
";

fn reference() -> String {
    let mut page = HEAD.to_owned();
    for (subject, rows) in SUBJECTS {
        write!(page, "\n## {subject}\n\n").expect("a String takes everything");
        page +=
            "| flag | KubeProxyConfiguration | TOML | default | meaning |\n| --- | --- | --- | --- | --- |\n";
        rows.iter().for_each(|setting| page += &row(setting));
    }
    page + TAIL
}

fn row(setting: &Setting) -> String {
    let mut defaults = Settings::default();
    let field_ref = (setting.field_ref)(&mut defaults);
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let flag = setting.flag.map(|flag| {
        let short = flag.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let mark = if flag.with_config_file == WithConfigFile::Applied { " +" } else { "" };
        let value = if field_ref.is_bool() {
            String::new()
        } else {
            format!(" {}", flag.type_name.unwrap_or_else(|| field_ref.go_type()))
        };
        format!("{short}`--{}{value}`{mark}", flag.name)
    });
    let yaml = setting
        .yaml
        .map(|field| format!("{}{}", code(field), if setting.zero_is_default { " °" } else { "" }));
    let cells = [
        flag.unwrap_or_default(),
        yaml.unwrap_or_default(),
        code(setting.toml.unwrap_or_default()),
        if field_ref.is_zero() { String::new() } else { code(&field_ref.to_string()) },
        meaning(setting),
    ];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// Returns the help of the flag that sets the field, or the reason why the setting has no effect.
pub(super) fn meaning(setting: &Setting) -> String {
    let name = setting.flag.map(|flag| flag.name);
    let mut helps = settings().filter_map(|other| other.flag).filter(|flag| Some(flag.name) == name);
    let help = helps.find(|flag| !flag.help.is_empty()).map(|flag| flag.help).unwrap_or_default();
    // The table marks it with +.
    let help = help.strip_suffix("; ignored with --config").unwrap_or(help);
    let help =
        help.strip_prefix("Accepted for compatibility with kube-proxy, no effect").map_or(help, |_| "");
    match (setting.unused, help) {
        (Some(why), _) => format!("No effect: {why}"),
        // A setting without a flag is documented in the example, which has every setting, as a test checks.
        (None, "") => example_comment(setting.toml.expect("a setting without a flag has a name in TOML")),
        (None, help) => help.to_owned(),
    }
}

/// Returns the comment of a setting in `config.example.toml`.
fn example_comment(path: &str) -> String {
    let (mut table, mut comment) = (String::new(), String::new());
    for line in include_str!("../../../config.example.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_end_matches(']'));
        } else if let Some(text) = line.strip_prefix('#') {
            comment = text.trim().trim_end_matches('.').to_owned();
        } else if line.split_once(" = ").is_some_and(|(key, _)| format!("{table}{key}") == path) {
            return comment;
        }
    }
    panic!("{path} is not in config.example.toml")
}

#[test]
fn the_reference_is_written_from_the_table() {
    assert_current("docs/settings.md", &reference());
}

#[test]
fn every_setting_has_a_meaning_and_every_name_is_on_the_page() {
    let page = reference();
    for setting in settings() {
        assert!(!meaning(setting).is_empty(), "{}", setting.id());
        let names = [setting.yaml, setting.toml].into_iter().flatten().map(|name| format!("`{name}`"));
        let flag = setting.flag.map(|flag| format!("`--{}", flag.name));
        for name in names.chain(flag) {
            assert!(page.contains(&name), "{name}");
        }
    }
    let rows: BTreeSet<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    assert!(rows.iter().all(|row| row.replace("\\|", "").matches('|').count() == 6), "a row is broken");
}
