//! What damage leaves of points, in words: what `check` and `repair points` tell of them.

use chrono::DateTime;

use crate::cli::output::{Output, Tone};
use crate::cli::words;
use crate::repository::check::{CheckReport, ClaimState, Finding, Lost, PointState, Severity};

/// Findings beyond this many are only counted; `--json` has a thousand.
const MOST_FINDINGS: usize = 50;
/// Points that a finding's line names.
const MOST_POINTS: usize = 4;
/// Damaged points that are told in detail.
const MOST_DETAILED: usize = 20;

/// A point as people know it: id, set and time, as far as they can be told.
pub fn name(point: &PointState) -> String {
    let time = DateTime::parse_from_rfc3339(&point.time).map(crate::clock::shown);
    match (&point.set, time) {
        (Some(set), Ok(time)) => format!("{} {set} {time}", point.id.short()),
        (Some(set), Err(_)) => format!("{} {set}", point.id.short()),
        (None, Ok(time)) => format!("{} of another program, {time}", point.id.short()),
        (None, Err(_)) => format!("{} of an unknown set", point.id.short()),
    }
}

/// A line for each finding, with the points that it touches, newest first.
pub fn findings(report: &CheckReport, output: Output) -> anyhow::Result<()> {
    for finding in report.findings.iter().take(MOST_FINDINGS) {
        let severity = match finding.severity {
            Severity::Damage => output.tone(Tone::Bad, "damaged:"),
            Severity::Note => output.tone(Tone::Faint, "note:"),
        };
        output.line(&format!("{severity} {}: {}{}", finding.object, finding.what, touches(finding, report)))?;
    }
    let more = report.unlisted + report.findings.len().saturating_sub(MOST_FINDINGS) as u64;
    if more > 0 {
        output.line(&format!("and {more} more"))?;
    }
    if report.missing_blobs > 0 {
        let blobs = words::count(report.missing_blobs, "blob is", "blobs are");
        output.line(&format!("{blobs} in no index: `keepset repair index` looks for what the packs still have"))?;
    }
    Ok(())
}

fn touches(finding: &Finding, report: &CheckReport) -> String {
    if finding.points.is_empty() {
        return if finding.severity == Severity::Damage { "; touches no point".to_owned() } else { String::new() };
    }
    let named: Vec<String> = finding
        .points
        .iter()
        .rev()
        .take(MOST_POINTS)
        .map(|id| report.points.iter().find(|point| point.id == *id).map_or_else(|| id.short(), name))
        .collect();
    let more = finding.points.len().saturating_sub(MOST_POINTS);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("; touches {}{more}", named.join(", "))
}

/// What is left of each damaged point, newest first, and how many are whole. With `whole_too` those have a line each.
pub fn points<'a>(points: impl Iterator<Item = &'a PointState> + Clone, whole_too: bool, output: Output) -> anyhow::Result<()> {
    let mut damaged: Vec<&PointState> = points.clone().filter(|point| whole_too || !point.whole).collect();
    damaged.reverse();
    let (mut detailed, mut left_out) = (0, 0u64);
    for point in damaged {
        detailed += usize::from(!point.whole);
        if detailed > MOST_DETAILED && !point.whole {
            left_out += 1;
            continue;
        }
        output.line(&format!("{}: {}", name(point), left(point)))?;
        for claim in point.claims.iter().filter(|claim| !claim.whole) {
            output.line(&format!("  {}: {}", claim.name, lost_of(claim)))?;
        }
        if point.claims.is_empty() && !point.lost.paths.is_empty() && point.set.is_none() && !point.time.is_empty() {
            output.line(&format!("  {}", lost(&point.lost)))?;
        }
    }
    if left_out > 0 {
        output.line(&format!("and {left_out} more that are damaged: --json has them all"))?;
    }
    let (whole, all) = (points.clone().filter(|point| point.whole).count(), points.count());
    if all > 0 {
        output.line(&format!("{whole} of {} whole", words::count(all as u64, "point is", "points are")))?;
    }
    Ok(())
}

fn left(point: &PointState) -> String {
    let whole = point.claims.iter().filter(|claim| claim.whole).count();
    match &point.reason {
        _ if point.whole => "whole".to_owned(),
        Some(reason) => reason.clone(),
        None if point.claims.is_empty() => "damaged".to_owned(),
        None => format!("{whole} of {} whole", words::count(point.claims.len() as u64, "claim is", "claims are")),
    }
}

fn lost_of(claim: &ClaimState) -> String {
    if claim.lost.paths.first().is_some_and(|path| path == "/") {
        return format!("lost with its {}", words::count(claim.files, "file", "files"));
    }
    format!("{} (of {})", lost(&claim.lost), words::count(claim.files, "file", "files"))
}

fn lost(lost: &Lost) -> String {
    let mut parts = Vec::new();
    if lost.files > 0 {
        parts.push(format!("{} lost", words::count(lost.files, "file", "files")));
    }
    if lost.folders > 0 {
        parts.push(format!("{} lost with all below", words::count(lost.folders, "folder", "folders")));
    }
    let more = (lost.files + lost.folders).saturating_sub(lost.paths.len() as u64);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    let named = if lost.paths.is_empty() { String::new() } else { format!(": {}{more}", lost.paths.join(", ")) };
    format!("{}{named}", parts.join(", "))
}
