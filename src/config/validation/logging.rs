//! Validation of the logging settings.

use super::Validator;
use crate::config::feature_gates::FeatureGates;
use crate::config::go_number::parse_quantity;
use crate::config::settings::OutputRouting;
use crate::config::validated::{LogFormat, Logging};

impl Validator<'_> {
    /// Validates the logging settings. Unlike kube-proxy, which is built without it, the JSON format is allowed.
    pub(super) fn logging(&mut self, gates: &FeatureGates) -> Logging {
        let given = &self.settings.logging;
        let format = match given.format.as_str() {
            "" | "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                self.reject("logging.format", format!("{other:?}"), "text or json");
                LogFormat::Text
            }
        };
        if format == LogFormat::Json && !given.vmodule.is_empty() {
            let patterns: Vec<_> =
                given.vmodule.iter().map(|m| format!("{}={}", m.file_pattern, m.verbosity)).collect();
            self.reject(
                "logging.vmodule",
                format!("{:?}", patterns.join(",")),
                "none with the json log format",
            );
        }
        let (text, json) = (&given.text, &given.json);
        self.output_routing(
            gates,
            ["logging.options.text.splitStream", "logging.options.text.infoBufferSize"],
            text,
        );
        self.output_routing(
            gates,
            ["logging.options.json.splitStream", "logging.options.json.infoBufferSize"],
            json,
        );
        Logging { format, verbosity: self.count("logging.verbosity", given.verbosity) }
    }

    fn output_routing(
        &mut self,
        gates: &FeatureGates,
        [split, buffer]: [&'static str; 2],
        given: &OutputRouting,
    ) {
        let expected = "the feature gate LoggingAlphaOptions to be enabled";
        if given.split_stream && !gates.enabled("LoggingAlphaOptions") {
            self.reject(split, true, expected);
        }
        if parse_quantity(&given.info_buffer_size) != Some(0) && !gates.enabled("LoggingAlphaOptions") {
            self.reject(buffer, &given.info_buffer_size, expected);
        }
    }
}
