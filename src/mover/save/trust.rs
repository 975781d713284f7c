//! Which files may be taken over from the previous point without reading them.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Clock;
use crate::model::manifest::ChangeDetection;
use crate::model::mover_job::SaveClaim;
use crate::volume::{Times, dirty_seconds};

/// A write in the same tick of the clock in which a file was read leaves its times as they were: a ctime this close to the previous
/// point's cut, or closer, says nothing.
const MARGIN: i64 = 120;

/// What one claim's walk knows about times.
#[derive(Debug)]
pub struct Trust {
    times: Times,
    /// ctimes from here on say nothing; `None` where no time does.
    before: Option<i64>,
    /// The least age of any ctime met so far: the volume's clock is behind ours by no more.
    lag: AtomicI64,
}

impl Trust {
    /// By what the claim's orders say, the file system's kind, and how long the kernel keeps pages dirty.
    pub fn new(claim: &SaveClaim, times: Times) -> Self {
        Trust { times, before: before(claim, times, dirty_seconds()), lag: AtomicI64::new(i64::MAX) }
    }

    /// Whether a file whose ctime is this may be taken as it was in the previous point if nothing else differs either.
    pub fn covers(&self, ctime: i64) -> bool {
        self.before.is_some_and(|before| ctime < before)
    }

    pub fn change_detection(&self) -> ChangeDetection {
        if self.before.is_some() { ChangeDetection::Metadata } else { ChangeDetection::Content }
    }

    /// Takes note of a ctime that the volume shows now.
    pub fn met(&self, ctime: i64, clock: &Clock) {
        if self.times == Times::Foreign {
            self.lag.fetch_min(clock.now().timestamp().saturating_sub(ctime).max(0), Ordering::Relaxed);
        }
    }

    /// By how many seconds the volume's clock may be behind ours; 0 where it is ours.
    pub fn clock_lag(&self) -> i64 {
        match self.lag.load(Ordering::Relaxed) {
            i64::MAX => 0,
            lag => lag,
        }
    }
}

fn before(claim: &SaveClaim, times: Times, dirty: Option<i64>) -> Option<i64> {
    let cut = claim.parent.and(claim.parent_cut)?;
    if claim.change_detection == ChangeDetection::Content || times == Times::Mute {
        return None;
    }
    Some(cut.saturating_sub(MARGIN.max(dirty?.saturating_mul(2))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::model::claim::ClaimShape;
    use crate::model::id::Id;

    use super::*;

    fn claim(change_detection: ChangeDetection) -> SaveClaim {
        SaveClaim {
            name: "data-web-0".into(),
            source: String::new(),
            folder: None,
            volume: None,
            shape: ClaimShape::default(),
            parent: Some(Id([1; 32])),
            parent_cut: Some(10_000),
            change_detection,
            exclude: Vec::new(),
        }
    }

    #[test]
    fn the_margin_grows_with_the_time_that_pages_stay_dirty() {
        let by_times = claim(ChangeDetection::Metadata);
        assert_eq!(before(&by_times, Times::Own, Some(35)), Some(9_880));
        assert_eq!(before(&by_times, Times::Foreign, Some(600)), Some(8_800));
        assert_eq!(before(&by_times, Times::Own, None), None);
        assert_eq!(before(&by_times, Times::Mute, Some(35)), None);
        assert_eq!(before(&claim(ChangeDetection::Content), Times::Own, Some(35)), None);
        assert_eq!(before(&SaveClaim { parent: None, ..by_times }, Times::Own, Some(35)), None);
    }

    #[test]
    fn the_newest_time_met_bounds_how_far_a_servers_clock_is_behind() {
        let clock = Clock::manual(1_000_000);
        let foreign = Trust::new(&claim(ChangeDetection::Metadata), Times::Foreign);
        assert_eq!(foreign.clock_lag(), 0);
        foreign.met(100, &clock);
        assert_eq!(foreign.clock_lag(), 900);
        clock.advance(Duration::from_secs(10));
        foreign.met(710, &clock);
        foreign.met(200, &clock);
        assert_eq!(foreign.clock_lag(), 300);
        foreign.met(5_000, &clock);
        assert_eq!(foreign.clock_lag(), 0, "a clock that is ahead is not behind");
        let own = Trust::new(&claim(ChangeDetection::Metadata), Times::Own);
        own.met(100, &clock);
        assert_eq!(own.clock_lag(), 0);
    }
}
