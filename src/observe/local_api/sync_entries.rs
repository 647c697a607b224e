//! Entries of the timeline about syncs and isolated objects.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use portcullis_cluster::ObjectKey;

use super::documents::{EntryType, TimelineEntry, seconds};
use super::timeline::Timeline;
use crate::control::{ControllerName, IsolatedObject, RulesResult, SyncTrigger};
use crate::moment::Moment;
use crate::plural::plural;

/// The largest number of objects that one sync adds to the timeline.
const OBJECTS: usize = 10;

impl Timeline {
    /// Adds the result of a sync of one set of rules.
    pub(crate) fn add_sync(
        &self,
        controller: ControllerName,
        result: &RulesResult,
        trigger: &SyncTrigger,
        at: Moment,
    ) {
        let mut text = format!("{trigger}, {:.1?}", result.duration);
        if result.restored > 0 {
            let process = trigger.process().unwrap_or("an unknown process");
            let objects = plural(result.restored, "object");
            write!(text, "; restored {objects} that {process} had changed")
                .expect("a String takes everything");
        }
        if let Some(error) = &result.error {
            write!(text, "; failed: {}", error.message).expect("a String takes everything");
        }
        let r#type = match result {
            RulesResult { error: Some(_), .. } => EntryType::SyncFailed,
            RulesResult { restored: 1.., .. } => EntryType::Drift,
            _ => EntryType::Sync,
        };
        self.add(TimelineEntry {
            rules: Some(result.rules.to_owned()),
            trigger: Some(trigger.name().to_owned()),
            duration_seconds: Some(seconds(result.duration)),
            restored: Some(result.restored),
            process: trigger.process().map(str::to_owned),
            error: result.error.as_ref().map(|error| error.message.clone()),
            ..TimelineEntry::new(r#type, controller.label, text, at)
        });
    }

    /// Adds the objects that a sync isolated, or that are no longer isolated.
    pub(crate) fn add_isolation(
        &self,
        controller: ControllerName,
        rules: &str,
        before: &[IsolatedObject],
        now: &[IsolatedObject],
        at: Moment,
    ) {
        let add = |r#type: EntryType, isolated: Vec<&IsolatedObject>| {
            for IsolatedObject { object, text, .. } in isolated.iter().take(OBJECTS) {
                let is_isolated = r#type == EntryType::Isolated;
                let summary = match is_isolated {
                    true => text.clone(),
                    false => format!("{object} is programmed, or was deleted"),
                };
                self.add(TimelineEntry {
                    rules: Some(rules.to_owned()),
                    object: Some(object.to_string()),
                    error: is_isolated.then(|| text.clone()),
                    ..TimelineEntry::new(r#type, controller.label, summary, at)
                });
            }
            let more = isolated.len().saturating_sub(OBJECTS);
            if more > 0 {
                let text = format!("{more} more {}", controller.objects);
                let entry = TimelineEntry::new(r#type, controller.label, text, at);
                self.add(TimelineEntry { rules: Some(rules.to_owned()), ..entry });
            }
        };
        add(EntryType::Isolated, only_in(now, before));
        add(EntryType::NoLongerIsolated, only_in(before, now));
    }
}

/// Returns the isolated objects that are not isolated in `others`.
fn only_in<'a>(isolated: &'a [IsolatedObject], others: &[IsolatedObject]) -> Vec<&'a IsolatedObject> {
    let others: BTreeSet<&ObjectKey> = others.iter().map(|isolated| &isolated.object).collect();
    isolated.iter().filter(|isolated| !others.contains(&isolated.object)).collect()
}
