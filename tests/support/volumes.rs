//! Volumes saved into a repository and filled again, by a mover in this process.

use std::path::{Path, PathBuf};

use keepset::clock::Clock;
use keepset::model::claim::ClaimShape;
use keepset::model::id::Id;
use keepset::model::manifest::ChangeDetection;
use keepset::model::mover_job::{ClaimReport, FillClaim, FillMode, MoverJob, MoverReport, SaveClaim, Task};
use keepset::model::set::{Ordinal, SetName};
use keepset::mover;
use keepset::mover::error::MoverError;
use keepset::repository::Repository;
use keepset::repository::key::{KeyOrigin, Password};
use keepset::store::Store;

pub async fn repository(store: Store) -> Repository {
    Repository::init(store, &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap()
}

/// What a mover does with this task, on a runtime of several threads.
pub async fn attempt(repository: &Repository, task: Task) -> Result<MoverReport, MoverError> {
    let mut name = [0u8; 8];
    keepset::random::fill(&mut name).unwrap();
    let run = data_encoding::HEXLOWER.encode(&name);
    let job =
        MoverJob { run, set: SetName::new("test", "web").unwrap(), ordinal: Ordinal(0), repository: String::new(), memory: 64 << 20, task };
    mover::run(job, repository.clone(), Clock::system(), std::sync::Arc::default(), std::sync::Arc::default()).await
}

/// The report about the one claim of a task that is done.
pub async fn run(repository: &Repository, task: Task) -> ClaimReport {
    attempt(repository, task).await.unwrap().claims.into_iter().next().unwrap()
}

pub fn save_claim(source: &Path, parent: Option<Id>, parent_cut: i64, change_detection: ChangeDetection) -> Task {
    let source = source.to_str().unwrap().to_owned();
    Task::Save(vec![SaveClaim {
        name: "data-web-0".into(),
        source,
        folder: None,
        volume: None,
        shape: ClaimShape::default(),
        parent,
        parent_cut: Some(parent_cut),
        change_detection,
        exclude: Vec::new(),
    }])
}

/// Saves, trusting every record that has not changed since the parent.
pub async fn save(repository: &Repository, source: &Path, parent: Option<Id>) -> ClaimReport {
    run(repository, save_claim(source, parent, i64::MAX, ChangeDetection::Metadata)).await
}

/// Orders to bring back all of what was saved; the caller changes what it wants otherwise.
pub fn fill_claim(saved: &ClaimReport, target: &Path, mode: FillMode) -> FillClaim {
    FillClaim {
        shape: ClaimShape::default(),
        name: saved.name.clone(),
        tree: saved.tree,
        root: saved.root.clone(),
        target: target.to_str().unwrap().to_owned(),
        folder: None,
        paths: Vec::new(),
        exclude: Vec::new(),
        mode,
        skip_damaged: false,
    }
}

/// A new folder of this name.
pub fn folder(within: &Path, name: &str) -> PathBuf {
    let path = within.join(name);
    std::fs::create_dir(&path).unwrap();
    path
}
