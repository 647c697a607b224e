//! Tests of `config.example.toml` and of the names of the settings.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::configuration_file::read;
use super::super::origins::Origins;
use super::super::setting_table::settings;
use super::super::settings::Settings;

#[test]
fn the_example_has_every_setting_with_its_default() {
    let example = include_str!("../../../config.example.toml");
    let mut origins = Origins::default();
    let (settings_read, errors) = read(Path::new("config.example.toml"), example, &mut origins);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(settings_read, Settings::default());
    for setting in settings().filter(|setting| setting.toml.is_some()) {
        assert!(!origins.is_default(setting.id()), "{} is missing", setting.toml.unwrap_or_default());
    }
}

#[test]
fn each_setting_of_the_example_has_a_comment() {
    let lines: Vec<&str> = include_str!("../../../config.example.toml").lines().collect();
    for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with('#')) {
        assert!(pair[0].starts_with('#'), "{} has no comment", pair[1]);
    }
}

#[test]
fn names_are_unique_and_unused_settings_are_not_in_toml() {
    let mut seen = BTreeSet::new();
    for setting in settings() {
        if let Some(toml) = setting.toml {
            assert!(seen.insert(toml), "{toml} twice");
            assert!(setting.unused.is_none(), "{toml} has no effect");
        }
    }
    let mut ids = BTreeSet::new();
    for setting in settings() {
        assert!(
            ids.insert(setting.id()) || setting.id() == "mode" || setting.yaml.is_none(),
            "{}",
            setting.id()
        );
    }
}
