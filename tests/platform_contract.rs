//! Does the place of folders keep to what every place must? The cluster suite asks the same of a real cluster.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use keepset::model::claim::ClaimShape;
use keepset::platform::folders::{Folders, FoldersOptions};

#[tokio::test]
async fn folders_keep_to_the_contract_of_places() {
    let place = tempfile::tempdir().unwrap();
    let folders = Folders::new(FoldersOptions {
        repository: None,
        root: place.path().join("claims"),
        cluster: "here".into(),
        templates: Vec::new(),
        start: None,
        replicas: None,
        program: "keepset".into(),
        program_args: Vec::new(),
        start_command: None,
    });
    support::contract::is_kept(&folders, &"shop/web".parse().unwrap(), &ClaimShape::default()).await;
}
