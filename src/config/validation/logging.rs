//! The rules for the log's settings.

use super::Validator;
use crate::config::feature_gates::FeatureGates;
use crate::config::go_number::parse_quantity;
use crate::config::settings::OutputRouting;
use crate::config::validated::{LogFormat, Logging};

impl Validator<'_> {
    /// More lenient than kube-proxy, which is built without the JSON format.
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
            self.reject("logging.vmodule", "a level by source file", "none with the log format json");
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
        Logging {
            format,
            verbosity: self.count("logging.verbosity", given.verbosity),
            flush_frequency: self.not_negative("logging.flushFrequency", given.flush_frequency),
        }
    }

    fn output_routing(
        &mut self,
        gates: &FeatureGates,
        [split, buffer]: [&'static str; 2],
        given: &OutputRouting,
    ) {
        let expected = "the feature gate LoggingAlphaOptions to be on as well";
        if given.split_stream && !gates.enabled("LoggingAlphaOptions") {
            self.reject(split, true, expected);
        }
        if parse_quantity(&given.info_buffer_size) != Some(0) && !gates.enabled("LoggingAlphaOptions") {
            self.reject(buffer, &given.info_buffer_size, expected);
        }
    }
}
