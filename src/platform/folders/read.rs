//! Reads a set from the folders that are there: which claims exist, which ought to, what is none of the set's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::model::claim::is_claim_name;
use crate::model::claim::{ClaimId, ClaimShape};
use crate::model::manifest::SetRecord;
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{ClaimState, SetState};
use crate::platform::PlatformError;
use crate::platform::folders::FoldersOptions;
use crate::platform::folders::root::{Folder, Root};
use crate::platform::folders::{journal, target};

/// More ordinals than any set has: a range beyond it is a mistyped or foreign folder.
const MOST_ORDINALS: u32 = 100_000;
/// More missing claims than any accident leaves.
const MOST_MISSING: u64 = 10_000;

pub(super) fn read_set(root: &Root, options: &FoldersOptions, set: &SetName) -> Result<SetState, PlatformError> {
    let (found, foreign) = sort_entries(root, options, set)?;
    let templates = templates(options, root.path(), &found)?;
    let (start, replicas) = range(options, set, &found)?;
    let in_range = |ordinal: Ordinal| ordinal.0 >= start && u64::from(ordinal.0) < u64::from(start) + u64::from(replicas);

    let mut ids: BTreeSet<ClaimId> = found.keys().cloned().collect();
    let expected = u64::from(replicas) * templates.len() as u64;
    let present = ids.iter().filter(|id| in_range(id.ordinal)).count() as u64;
    if expected - present.min(expected) > MOST_MISSING {
        let last = found.keys().next_back().map_or(start, |id| id.ordinal.0);
        return Err(PlatformError::Scattered { set: set.to_string(), first: start, ordinal: last, claims: expected - present });
    }
    for ordinal in 0..replicas {
        ids.extend(templates.iter().map(|template| ClaimId { ordinal: Ordinal(start + ordinal), template: template.clone() }));
    }

    let claims = ids
        .into_iter()
        .map(|id| {
            let name = id.name(&set.name);
            let folder = found.get(&id);
            ClaimState {
                source: folder.map(|_| root.path_of(&name).display().to_string()),
                // A folder that cannot be looked into is not known to be empty; its mover will say what is wrong with it.
                empty: folder.is_some_and(|folder| folder.is_empty().unwrap_or(false)),
                retained: !in_range(id.ordinal),
                half_restored: target::mark_of(root, &name),
                shape: ClaimShape::default(),
                id,
                name,
            }
        })
        .collect();
    let record = SetRecord {
        cluster: options.cluster.clone(),
        namespace: set.namespace.clone(),
        name: set.name.clone(),
        start,
        replicas,
        templates,
        ..SetRecord::default()
    };
    let (open_restore, last_restore) = (journal::open_run(root, set)?, journal::last_run(root, set)?);
    Ok(SetState { set: record, claims, foreign, open_restore, last_restore, ..SetState::default() })
}

/// The set's folders by identity, and the names of everything else.
fn sort_entries(root: &Root, options: &FoldersOptions, set: &SetName) -> Result<(BTreeMap<ClaimId, Folder>, Vec<String>), PlatformError> {
    let mut found = BTreeMap::new();
    let mut foreign = Vec::new();
    for (name, _) in root.entries().map_err(|e| PlatformError::io("read", root.path(), e))? {
        let id = name
            .to_str()
            .filter(|name| is_claim_name(name))
            .and_then(|name| ClaimId::of_name(name, &set.name))
            .filter(|id| options.templates.is_empty() || options.templates.contains(&id.template));
        let Some(id) = id else {
            if !target::is_ours(&name) {
                foreign.push(name.to_string_lossy().into_owned());
            }
            continue;
        };
        // A link or a file left aside as foreign would be a claim silently lost: both are errors.
        if let Some(folder) = target::folder_of(root, &id.name(&set.name))? {
            found.insert(id, folder);
        }
    }
    foreign.sort();
    Ok((found, foreign))
}

fn templates(options: &FoldersOptions, root: &Path, found: &BTreeMap<ClaimId, Folder>) -> Result<Vec<String>, PlatformError> {
    if !options.templates.is_empty() {
        return Ok(options.templates.clone());
    }
    let templates: BTreeSet<&String> = found.keys().map(|id| &id.template).collect();
    for short in &templates {
        if let Some(long) = templates.iter().find(|long| long.strip_prefix(short.as_str()).is_some_and(|rest| rest.starts_with('-'))) {
            return Err(PlatformError::Ambiguous { place: root.display().to_string(), short: (*short).clone(), long: (*long).clone() });
        }
    }
    Ok(templates.into_iter().cloned().collect())
}

/// First ordinal and their number, as the user said or from lowest to highest.
fn range(options: &FoldersOptions, set: &SetName, found: &BTreeMap<ClaimId, Folder>) -> Result<(u32, u32), PlatformError> {
    let lowest = found.keys().next().map_or(0, |id| id.ordinal.0);
    let highest = found.keys().next_back().map(|id| id.ordinal.0);
    let start = options.start.unwrap_or(match options.replicas {
        // A number of ordinals without a first one is a set as Kubernetes makes it by default.
        Some(_) => 0,
        None => lowest,
    });
    let inferred = match highest {
        Some(highest) if highest >= start => u64::from(highest) - u64::from(start) + 1,
        _ => 0,
    };
    if options.replicas.is_none() && inferred > u64::from(MOST_ORDINALS) {
        let claims = inferred - found.len() as u64;
        return Err(PlatformError::Scattered { set: set.to_string(), first: start, ordinal: highest.unwrap_or(start), claims });
    }
    let replicas = options.replicas.unwrap_or(u32::try_from(inferred).unwrap_or(MOST_ORDINALS));
    if replicas > MOST_ORDINALS || start.checked_add(replicas).is_none() {
        return Err(PlatformError::BadRange { set: set.to_string(), start, replicas });
    }
    Ok((start, replicas))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::platform::Platform;
    use crate::platform::folders::Folders;

    use super::*;

    fn options(root: &Path) -> FoldersOptions {
        FoldersOptions {
            root: root.to_owned(),
            repository: None,
            withheld: Vec::new(),
            cluster: "here".into(),
            templates: Vec::new(),
            start: None,
            replicas: None,
            program: "/nowhere".into(),
            program_args: Vec::new(),
            start_command: None,
        }
    }

    fn with(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("file"), name).unwrap();
        }
        root
    }

    fn read(root: &tempfile::TempDir) -> SetState {
        read_set(&Root::open(root.path()).unwrap(), &options(root.path()), &web()).unwrap()
    }

    fn web() -> SetName {
        "shop/web".parse().unwrap()
    }

    fn names(state: &SetState) -> Vec<&str> {
        state.claims.iter().map(|claim| claim.name.as_str()).collect()
    }

    #[test]
    fn a_folder_of_web_9_comes_before_web_10() {
        let root = with(&["data-web-10", "data-web-9", "data-web-8"]);
        let state = read(&root);
        assert_eq!(names(&state), ["data-web-8", "data-web-9", "data-web-10"]);
        assert_eq!((state.set.start, state.set.replicas), (8, 3));
    }

    #[test]
    fn claims_are_in_ordinal_order_and_then_by_template() {
        let root = with(&["wal-web-5", "data-web-6", "wal-web-6", "data-web-5"]);
        assert_eq!(names(&read(&root)), ["data-web-5", "wal-web-5", "data-web-6", "wal-web-6"]);
        assert_eq!(read(&root).set.templates, ["data", "wal"]);
    }

    #[test]
    fn a_claim_that_other_ordinals_have_is_missing_and_not_forgotten() {
        let root = with(&["data-web-0", "wal-web-0", "data-web-2", "wal-web-2", "data-web-1"]);
        let state = read(&root);
        let missing: Vec<_> = state.claims.iter().filter(|claim| claim.source.is_none()).map(|claim| claim.name.as_str()).collect();
        assert_eq!(missing, ["wal-web-1"]);
    }

    #[test]
    fn foreign_folders_and_files_are_named_and_left_alone() {
        let root = with(&["data-web-0", "data-db-0", "data-web-00", "data-web-01", "notes", "data-web-x"]);
        fs::write(root.path().join("README"), "").unwrap();
        let state = read(&root);
        assert_eq!(names(&state), ["data-web-0"]);
        assert_eq!(state.foreign, ["README", "data-db-0", "data-web-00", "data-web-01", "data-web-x", "notes"]);
    }

    #[test]
    fn a_claims_name_on_a_link_or_a_file_is_refused_and_never_followed() {
        let root = with(&["data-web-0"]);
        std::os::unix::fs::symlink("data-web-0", root.path().join("data-web-1")).unwrap();
        let error = read_set(&Root::open(root.path()).unwrap(), &options(root.path()), &web()).unwrap_err();
        assert!(error.to_string().contains("data-web-1"), "{error}");
        assert!(matches!(error, PlatformError::NotAClaim { .. }));
        fs::remove_file(root.path().join("data-web-1")).unwrap();
        fs::write(root.path().join("data-web-1"), "").unwrap();
        assert!(matches!(read_set(&Root::open(root.path()).unwrap(), &options(root.path()), &web()), Err(PlatformError::NotAClaim { .. })));
    }

    #[test]
    fn a_template_that_could_be_another_set_is_asked_about() {
        let root = with(&["data-web-0", "data-my-web-0"]);
        let error = read_set(&Root::open(root.path()).unwrap(), &options(root.path()), &web()).unwrap_err();
        assert!(matches!(error, PlatformError::Ambiguous { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--template data"), "{:?}", error.hint());

        let told = FoldersOptions { templates: vec!["data".into()], ..options(root.path()) };
        let state = read_set(&Root::open(root.path()).unwrap(), &told, &web()).unwrap();
        assert_eq!((names(&state), &state.foreign), (vec!["data-web-0"], &vec!["data-my-web-0".to_owned()]));
        let told = FoldersOptions { templates: vec!["data".into(), "data-my".into()], ..options(root.path()) };
        assert_eq!(names(&read_set(&Root::open(root.path()).unwrap(), &told, &web()).unwrap()), ["data-web-0", "data-my-web-0"]);
    }

    #[test]
    fn claims_outside_a_given_range_are_kept_and_marked() {
        let root = with(&["data-web-0", "data-web-1", "data-web-4"]);
        let told = FoldersOptions { start: Some(0), replicas: Some(3), ..options(root.path()) };
        let state = read_set(&Root::open(root.path()).unwrap(), &told, &web()).unwrap();
        let seen: Vec<_> = state.claims.iter().map(|c| (c.id.ordinal.0, c.source.is_some(), c.retained)).collect();
        assert_eq!(seen, [(0, true, false), (1, true, false), (2, false, false), (4, true, true)]);
    }

    #[test]
    fn an_empty_claim_is_seen_as_empty_and_so_is_an_empty_lost_and_found() {
        let root = with(&["data-web-0"]);
        fs::create_dir_all(root.path().join("data-web-1/lost+found")).unwrap();
        fs::create_dir_all(root.path().join("data-web-3/lost+found/found")).unwrap();
        fs::create_dir(root.path().join("data-web-2")).unwrap();
        let empty: Vec<_> = read(&root).claims.iter().map(|claim| claim.empty).collect();
        assert_eq!(empty, [false, true, true, false]);
    }

    #[test]
    fn no_folders_of_the_set_is_a_set_without_claims() {
        let root = with(&["data-db-0"]);
        let state = read(&root);
        assert_eq!((state.claims.len(), state.set.replicas), (0, 0));
    }

    #[tokio::test]
    async fn no_folder_is_said_so() {
        let root = with(&[]);
        let error = Folders::new(options(&root.path().join("gone"))).read_set(&web()).await.unwrap_err();
        assert!(matches!(error, PlatformError::NoFolder { .. }), "{error}");
    }

    #[test]
    fn a_stray_far_ordinal_is_asked_about_instead_of_calling_for_a_billion_claims() {
        let root = with(&["data-web-0", "data-web-4000000000"]);
        assert!(matches!(read_set(&Root::open(root.path()).unwrap(), &options(root.path()), &web()), Err(PlatformError::Scattered { .. })));
        let root = with(&["data-web-4294967295"]);
        let state = read_set(&Root::open(root.path()).unwrap(), &options(root.path()), &web());
        assert!(matches!(state, Err(PlatformError::BadRange { .. })), "{state:?}");
        let told = FoldersOptions { start: Some(0), replicas: Some(90_000), ..options(root.path()) };
        assert!(matches!(read_set(&Root::open(root.path()).unwrap(), &told, &web()), Err(PlatformError::Scattered { .. })));
    }

    #[test]
    fn a_half_restored_claim_names_its_run() {
        let root = with(&["data-web-0"]);
        target::open_claim(&Root::open(root.path()).unwrap(), "run-7", "data-web-1", crate::model::mover_job::FillMode::New).unwrap();
        let state = read(&root);
        assert_eq!(state.claims[1].half_restored.as_deref(), Some("run-7"));
        assert_eq!(state.foreign, Vec::<String>::new());
    }
}
