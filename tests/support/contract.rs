//! What every place where sets live must keep to, whatever it is.

use keepset::model::claim::{ClaimId, ClaimPlace, ClaimShape};
use keepset::model::manifest::Consistency;
use keepset::model::mover_job::FillMode;
use keepset::model::set::{Ordinal, SetName};
use keepset::model::set_state::{SetRun, TargetState};
use keepset::platform::{Platform, PlatformError};

fn id(ordinal: u32) -> ClaimId {
    ClaimId { ordinal: Ordinal(ordinal), template: "data".into() }
}

async fn states(platform: &dyn Platform, set: &SetName) -> Vec<TargetState> {
    let targets = platform.read_targets(set, &[id(9), id(10)], false).await.unwrap();
    let names: Vec<&str> = targets.claims.iter().map(|claim| claim.name.as_str()).collect();
    assert_eq!(names, [id(9).name(&set.name), id(10).name(&set.name)], "as they were asked for");
    targets.claims.into_iter().map(|claim| claim.state).collect()
}

/// Two claims of `set` are absent, and so is the set itself. Claims of `shape` can be made.
pub async fn is_kept(platform: &dyn Platform, set: &SetName, shape: &ClaimShape) {
    journals(platform, set).await;
    claims(platform, set, shape).await;
    without_a_set(platform, set).await;
}

async fn journals(platform: &dyn Platform, set: &SetName) {
    assert_eq!(platform.read_journal(set).await.unwrap(), None);
    assert!(platform.take_journal(set).await.unwrap().is_none());
    let mut hold = platform.open_journal(set, "first\n").await.unwrap();
    assert!(matches!(platform.open_journal(set, "other\n").await, Err(PlatformError::JournalThere { .. })));
    platform.append_journal(&mut hold, "second\n").await.unwrap();
    assert_eq!(platform.read_journal(set).await.unwrap().as_deref(), Some("first\nsecond\n"));
    drop(hold);
    let (mut hold, text) = platform.take_journal(set).await.unwrap().unwrap();
    assert_eq!(text, "first\nsecond\n");
    platform.append_journal(&mut hold, "third\n").await.unwrap();
    assert_eq!(platform.read_journal(set).await.unwrap().as_deref(), Some("first\nsecond\nthird\n"));
    platform.close_journal(hold).await.unwrap();
    assert_eq!(platform.read_journal(set).await.unwrap(), None);
    let hold = platform.open_journal(set, "anew\n").await.unwrap();
    platform.close_journal(hold).await.unwrap();
}

async fn claims(platform: &dyn Platform, set: &SetName, shape: &ClaimShape) {
    let place = |ordinal| ClaimPlace { set: set.clone(), id: id(ordinal), name: id(ordinal).name(&set.name), shape: shape.clone() };
    let (nine, ten) = (place(9), place(10));
    assert_eq!(states(platform, set).await, [TargetState::Absent, TargetState::Absent]);
    for refused in [platform.close_claim("run-1", &nine).await, platform.abandon_claim("run-1", &nine, true).await] {
        assert!(matches!(refused, Err(PlatformError::NotOurs { .. })), "{refused:?}");
    }
    platform.open_claim("run-1", &nine, FillMode::New).await.unwrap();
    assert_eq!(states(platform, set).await, [TargetState::HalfRestored("run-1".into()), TargetState::Absent]);
    assert!(platform.open_claim("run-2", &nine, FillMode::New).await.is_err(), "it is another's");
    assert!(matches!(platform.close_claim("run-2", &nine).await, Err(PlatformError::NotOurs { .. })));
    platform.abandon_claim("run-1", &nine, true).await.unwrap();
    assert_eq!(states(platform, set).await[0], TargetState::Absent);

    platform.open_claim("run-3", &ten, FillMode::New).await.unwrap();
    platform.close_claim("run-3", &ten).await.unwrap();
    let closed = states(platform, set).await.remove(1);
    assert!(matches!(closed, TargetState::Empty | TargetState::HoldsData), "{closed:?}");
    assert!(matches!(platform.abandon_claim("run-3", &ten, true).await, Err(PlatformError::NotOurs { .. })), "it is whole");
    // A run takes over what another left half done, if it is told to replace it.
    platform.open_claim("run-4", &ten, FillMode::Replace).await.unwrap();
    platform.open_claim("run-5", &ten, FillMode::Replace).await.unwrap();
    assert_eq!(states(platform, set).await[1], TargetState::HalfRestored("run-5".into()));
    platform.close_claim("run-5", &ten).await.unwrap();

    for as_it_is in [Consistency::Fuzzy, Consistency::Stopped] {
        let cuts = platform.cut("run-6", set, &[id(10), id(9)], as_it_is).await.unwrap();
        let names: Vec<&str> = cuts.iter().map(|cut| cut.name.as_str()).collect();
        assert_eq!(names, [ten.name.as_str(), nine.name.as_str()]);
        assert!(cuts.iter().all(|cut| cut.volume.is_none() && cut.moment.is_none()));
    }
}

async fn without_a_set(platform: &dyn Platform, set: &SetName) {
    let hold = platform.hold_set(set).await.unwrap();
    for _ in 0..2 {
        platform.stop(set, &[id(9).name(&set.name)]).await.unwrap();
        platform.give_back(set, &SetRun::default(), None).await.unwrap();
        platform.tidy("run-7", set).await.unwrap();
    }
    hold.release().await;
    platform.hold_set(set).await.unwrap().release().await;
}
