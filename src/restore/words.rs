//! A restore's plan in words for people.

use std::collections::BTreeSet;

use crate::model::journal::Before;
use crate::model::set::Ordinal;
use crate::restore::plan::{PlannedStart, RestorePlan};
use crate::restore::refusal::listed;

impl RestorePlan {
    /// The plan for people, a line each.
    pub fn lines(&self) -> Vec<String> {
        let ordinals: BTreeSet<Ordinal> = self.claims.iter().map(|claim| claim.id.ordinal).collect();
        let quality = if self.complete { "complete" } else { "partial" };
        let renamed = if self.from == self.to { String::new() } else { format!(" as {}", self.to) };
        let mut lines = vec![
            format!("restore {} of cluster {}{renamed} from point {}", self.from, self.cluster, self.point.short()),
            format!("the point is {quality}, of {}", crate::clock::shown_text(&self.time)),
            format!("into {}: {}, {}", self.place, counted(ordinals.len(), "ordinal"), counted(self.claims.len(), "claim")),
        ];
        for ordinal in &ordinals {
            let claims = self.claims.iter().filter(|claim| claim.id.ordinal == *ordinal);
            let named: Vec<String> = claims
                .map(|claim| {
                    let was = if claim.name == claim.saved_as { String::new() } else { format!("from {}, ", claim.saved_as) };
                    let over = if claim.before == Before::Data { ", over what it holds" } else { "" };
                    format!("{} ({was}{} in {}{over})", claim.name, bytes_text(claim.bytes), counted_u64(claim.files, "file"))
                })
                .collect();
            lines.push(format!("  ordinal {ordinal}: {}", named.join(", ")));
        }
        if self.safety {
            lines.push("what they hold is sealed in a safety point first".into());
        } else if self.claims.iter().any(|claim| claim.before == Before::Data) {
            lines.push("what they hold is sealed in no safety point: there is no way back".into());
        }
        if !self.paths.is_empty() {
            lines.push(format!("only {}", listed(&self.paths)));
        }
        if ordinals.len() > 1 && self.parallel > 1 {
            lines.push(format!("up to {} ordinals at a time", self.parallel.min(ordinals.len())));
        }
        if !self.create.is_empty() {
            lines.push(format!("then make, as the point recorded it, set {} at 0:", self.to));
            for object in &self.create {
                let text = serde_json::to_string_pretty(object).unwrap_or_default();
                lines.extend(text.lines().map(|line| format!("    {line}")));
            }
        }
        lines.push(match &self.start {
            PlannedStart::Ordered(ordinals) => format!("then start, each ready before the next: {}", numbers(ordinals)),
            PlannedStart::Parallel(ordinals) => format!("then start at once: {}", numbers(ordinals)),
            PlannedStart::None(why) => format!("then start nothing: {why}"),
        });
        for (what, names) in [("in the point, not restored", &self.left_out), ("not of this restore, left alone", &self.foreign)] {
            if !names.is_empty() {
                lines.push(format!("{what}: {}", listed(names)));
            }
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}

fn numbers(ordinals: &[Ordinal]) -> String {
    ordinals.iter().map(Ordinal::to_string).collect::<Vec<_>>().join(", ")
}

fn counted(count: usize, what: &str) -> String {
    counted_u64(count as u64, what)
}

fn counted_u64(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `3.2 MiB`; whole bytes below 1 KiB.
fn bytes_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}
