//! How people name a point, and what is wrong when none or several are meant.

use std::str::FromStr;

use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike};

/// Fewer digits of an id are more likely a slip than a name.
const SHORTEST_PREFIX: usize = 4;

/// Which point is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// The newest.
    #[default]
    Latest,
    /// The one whose id begins with these hex digits.
    Id(String),
    /// The newest that is no younger.
    At(DateTime<FixedOffset>),
}

/// The text names no point.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no point: it should read latest, the first digits of an id, or a time as 2026-11-24T08:00:00Z or 2026-11-24 08:00")]
pub struct BadSelector(String);

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "latest" {
            return Ok(Selector::Latest);
        }
        if (SHORTEST_PREFIX..=64).contains(&text.len()) && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Selector::Id(text.to_owned()));
        }
        moment(text).map(Selector::At).ok_or_else(|| BadSelector(text.chars().take(80).collect()))
    }
}

/// RFC 3339, what [`crate::clock::shown`] makes, or a date with or without a time of day in this machine's zone. A date alone means its end, and
/// a time means the end of its second: what is shown of a point has no fractions, and must name that point.
fn moment(text: &str) -> Option<DateTime<FixedOffset>> {
    let time = instant(text)?;
    if text.contains('.') { Some(time) } else { time.with_nanosecond(999_999_999) }
}

fn instant(text: &str) -> Option<DateTime<FixedOffset>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time);
    }
    let zoned = ["%Y-%m-%d %H:%M:%S %:z", "%Y-%m-%d %H:%M %:z"];
    if let Some(time) = zoned.iter().find_map(|format| DateTime::parse_from_str(text, format).ok()) {
        return Some(time);
    }
    let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()).or_else(|| {
        let end = NaiveTime::from_hms_opt(23, 59, 59)?;
        Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(end))
    })?;
    // When clocks go back an hour is there twice: the earlier reading can only choose an older point.
    Some(Local.from_local_datetime(&local).earliest()?.fixed_offset())
}

/// No point, or more than one, is what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    #[error("there is no point of set {set}")]
    None { set: String },
    #[error("there is no point of set {set} of cluster {cluster}, but of {}", others.join(", "))]
    OtherCluster { set: String, cluster: String, others: Vec<String> },
    #[error("there is no complete point of set {set}: {partial} partial only")]
    NoneComplete { set: String, partial: usize },
    #[error("there is no point of set {set} as old as {time}")]
    NoneBefore { set: String, time: String },
    #[error("the times of all points of set {set} are ahead of this machine's clock: {}", ids.join(", "))]
    OnlyAhead { set: String, ids: Vec<String> },
    #[error("there is no point whose id begins with {prefix}")]
    NoSuchId { prefix: String },
    #[error("{count} points have ids that begin with {prefix}")]
    AmbiguousId { prefix: String, count: usize },
    #[error("snapshot {id} is no recovery point{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    NoPoint { id: String, reason: Option<String> },
    #[error("point {id} is of set {set}, not of {asked}")]
    OtherSet { id: String, set: String, asked: String },
    #[error("set {set} has points of several clusters: {}", clusters.join(", "))]
    SeveralClusters { set: String, clusters: Vec<String> },
    #[error("snapshots that could be the one cannot be read: {}", ids.join(", "))]
    Unreadable { ids: Vec<String> },
    #[error("point {id} is partial: {}", defects.join("; "))]
    Partial { id: String, defects: Vec<String> },
}

impl ChoiceError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ChoiceError::None { .. } | ChoiceError::NoneBefore { .. } | ChoiceError::NoSuchId { .. } => {
                "`keepset list` shows every point".to_owned()
            }
            ChoiceError::OnlyAhead { .. } => {
                "set the clock right, or name a point by its id; `keepset forget ID` removes one that a wrong clock dated".to_owned()
            }
            ChoiceError::AmbiguousId { .. } => "give more of its digits".to_owned(),
            ChoiceError::NoPoint { reason: None, .. } => "it was made by another program: `restic restore` brings it back".to_owned(),
            ChoiceError::NoPoint { .. } => "`keepset check` tells what is damaged; `keepset repair index` mends an index".to_owned(),
            ChoiceError::OtherSet { set, .. } => format!("restore {set}, with `--to` if it shall have another name"),
            ChoiceError::OtherCluster { .. } | ChoiceError::SeveralClusters { .. } => "choose one with `--from-cluster`".to_owned(),
            ChoiceError::Unreadable { .. } => {
                "name a point by its id: `keepset list` shows those that can be read; `keepset check` tells what is damaged".to_owned()
            }
            ChoiceError::NoneComplete { .. } | ChoiceError::Partial { .. } => {
                "choose an older point that is complete, or take what there is with `--allow-partial`".to_owned()
            }
        })
    }

    /// A rule of safety says no, and a flag overrides it.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            ChoiceError::NoneComplete { .. }
                | ChoiceError::Partial { .. }
                | ChoiceError::Unreadable { .. }
                | ChoiceError::OnlyAhead { .. }
                | ChoiceError::SeveralClusters { .. }
                | ChoiceError::OtherSet { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_by_latest_an_id_or_a_time_and_by_nothing_else() {
        assert_eq!("latest".parse(), Ok(Selector::Latest));
        assert_eq!("1a2b".parse(), Ok(Selector::Id("1a2b".into())));
        let time = DateTime::parse_from_rfc3339("2026-11-24T08:00:00.999999999Z").unwrap();
        for same in ["2026-11-24T08:00:00Z", "2026-11-24 08:00:00Z", "2026-11-24 09:00:00 +01:00", "2026-11-24 03:00 -05:00"] {
            assert_eq!(same.parse(), Ok(Selector::At(time)), "{same}");
        }
        assert_eq!("2026-11-24T08:00:00.999999999Z".parse(), Ok(Selector::At(time)));
        for local in ["2026-11-24 08:00", "2026-11-24T08:00", "2026-11-24 08:00:00", "2026-11-24"] {
            assert!(matches!(local.parse(), Ok(Selector::At(_))), "{local}");
        }
        for bad in ["", "abc", "1A2B", "newest", "2026-13-01", "24.11.2026", &"a".repeat(65)] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_date_alone_means_all_of_that_day() {
        let Ok(Selector::At(date)) = "2026-11-24".parse() else { panic!("no time") };
        let Ok(Selector::At(evening)) = "2026-11-24 23:00".parse() else { panic!("no time") };
        assert!(date > evening);
    }
}
