//! What came of a drill: a document that `docs/json.md` describes.

use serde::{Deserialize, Serialize};

use crate::model::id::Id;
use crate::model::manifest::Consistency;
use crate::model::mover_job::Problem;
use crate::model::set::{Ordinal, SetName};

/// The verdict on one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillReport {
    pub cluster: String,
    pub set: SetName,
    pub point: Id,
    /// When the point's backup began, RFC 3339.
    pub time: String,
    pub complete: bool,
    pub consistency: Consistency,
    /// Where it was restored to, in words; all of it is gone again.
    pub place: String,
    /// Every name and every byte that came back is as in the point.
    pub proven: bool,
    /// Proven, every probe passed, and the application became ready where it was started.
    pub passed: bool,
    /// In the order of ordinals, then by template.
    pub claims: Vec<DrilledClaim>,
    /// In the order of ordinals; empty where no probe was given, or it was not reached.
    pub probes: Vec<ProbeReport>,
    /// `null` where it was not to be started, or that was not reached.
    pub app: Option<AppReport>,
    /// All of it, from the first step to the last.
    pub seconds: f64,
}

/// One claim that was brought back and read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrilledClaim {
    /// As it is called in the point.
    pub name: String,
    pub ordinal: Ordinal,
    pub files: u64,
    pub bytes: u64,
    /// Names and bytes that are not as in the point.
    pub differences: Vec<Problem>,
    /// What is back without some attribute, or could not be made at all where the drill ran.
    pub problems: Vec<Problem>,
}

/// What the user's command said of one ordinal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    pub ordinal: Ordinal,
    pub passed: bool,
    /// `null` where it was ended before it ended by itself.
    pub exit_code: Option<i32>,
    /// How it ended, in words.
    pub how: String,
    /// The end of its output on one line.
    pub said: String,
    pub seconds: f64,
}

/// What became of the application on what was restored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppReport {
    /// Every ordinal became ready.
    pub passed: bool,
    pub ready: Vec<Ordinal>,
    /// Why not all did; `null` where they did.
    pub reason: Option<String>,
    pub seconds: f64,
}

impl DrillReport {
    /// Nothing was lacking, not even an attribute.
    pub fn is_whole(&self) -> bool {
        self.claims.iter().all(|claim| claim.problems.is_empty())
    }

    /// The verdict in one line.
    pub fn summary(&self) -> String {
        let point = self.point.short();
        if let Some(claim) = self.claims.iter().find(|claim| !claim.differences.is_empty()) {
            let first = &claim.differences[0];
            let all: usize = self.claims.iter().map(|claim| claim.differences.len()).sum();
            let more = if all > 1 { format!("; and {} more", all - 1) } else { String::new() };
            return format!("point {point} did not come back as it is: {}/{}: {}{more}", claim.name, first.path, first.reason);
        }
        if let Some(probe) = self.probes.iter().find(|probe| !probe.passed) {
            let said = if probe.said.is_empty() { String::new() } else { format!(": {}", probe.said) };
            return format!("point {point} is proven, but the probe of ordinal {} failed ({}){said}", probe.ordinal, probe.how);
        }
        if let Some(reason) = self.app.as_ref().and_then(|app| app.reason.as_ref()) {
            return format!("point {point} is proven, but the application did not start: {reason}");
        }
        let claims = self.claims.len();
        let probes = if self.probes.is_empty() { "no probe".to_owned() } else { format!("{} probes passed", self.probes.len()) };
        let lacks = if self.is_whole() { "" } else { "; some attributes could not be given back" };
        let started = if self.app.is_some() { ", the application started" } else { "" };
        format!("point {point} is proven: {claims} claims, {probes}{started}{lacks}")
    }
}
