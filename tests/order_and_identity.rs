//! Does a set come back as one thing: every claim to its ordinal, ordinals in order, and nothing that looks whole and is not?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::compare::assert_same;
use support::keepset::{Keepset, Ran};

/// What stands beside the claims while a restore is open.
const JOURNAL: &str = ".keepset-restore-web";

/// The set `shop/web` in a folder, and a repository beside it.
struct Set {
    keepset: Keepset,
    live: PathBuf,
}

impl Set {
    /// With these claims' folders, each of a few files that no other has.
    fn new(claims: &[&str]) -> Set {
        let keepset = Keepset::new();
        let live = keepset.path("live");
        let set = Set { keepset, live };
        claims.iter().for_each(|claim| set.fill(claim));
        set
    }

    fn fill(&self, claim: &str) {
        let folder = self.live.join(claim);
        fs::create_dir_all(folder.join("conf")).unwrap();
        fs::write(folder.join("conf/name"), claim).unwrap();
        // Bytes of its own, so that each claim's chunks are stored apart.
        let seed = claim.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let noise = |at: u32| (at ^ seed).wrapping_mul(2_654_435_761).rotate_left(at % 13).to_le_bytes();
        fs::write(folder.join("pages"), (0..60_000).flat_map(noise).collect::<Vec<u8>>()).unwrap();
    }

    fn remove(&self, claim: &str) {
        fs::remove_dir_all(self.live.join(claim)).unwrap();
    }

    /// `keepset backup shop/web --from LIVE …`
    fn backup(&self, more: &[&str]) -> Ran {
        let args = ["backup", "shop/web", "--from", self.live.to_str().unwrap()];
        self.keepset.run(args.iter().chain(more))
    }

    fn backup_json(&self, more: &[&str]) -> Value {
        let ran = self.backup(&[more, &["--json"]].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {} {}", ran.out, ran.err))
    }

    /// `keepset restore shop/web --into BACK …`
    fn restore(&self, more: &[&str]) -> Ran {
        self.keepset.run(["restore", "shop/web", "--into", "back"].iter().chain(more))
    }

    fn back(&self) -> PathBuf {
        self.keepset.path("back")
    }

    /// Names in the folder that claims were restored to, marks among them.
    fn there(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.back()) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Start commands that write down what they see: which claims are there, which marks, and in which order they were called.
    fn with_starts(self, ready: &str, deadline: &str) -> Set {
        let log = self.keepset.path("log");
        let start = format!(
            "echo start {{ordinal}} $(ls -A {{dir}} | grep -c -e -web-) claims $(ls -A {{dir}} | grep -c incomplete) marks >> {}",
            log.display()
        );
        let ready = ready.replace("LOG", log.to_str().unwrap());
        let settings = format!(
            "cluster: test\nsets:\n  - match: {{ namespace: shop, name: web }}\n    start:\n      command: [sh, -c, '{start}']\n      ready: [sh, -c, '{ready}']\n      deadline: {deadline}\n"
        );
        fs::write(self.keepset.path("settings.yaml"), settings).unwrap();
        self
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.keepset.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

fn ordinals(plan: &Value) -> Vec<u64> {
    plan["plans"][0]["ordinals"].as_array().unwrap().iter().map(|ordinal| ordinal["ordinal"].as_u64().unwrap()).collect()
}

const NINE_TO_ELEVEN: [&str; 6] = ["data-web-9", "wal-web-9", "data-web-10", "wal-web-10", "data-web-11", "wal-web-11"];
/// Ready when asked for the second time, and then says so.
const SECOND_TIME: &str = "test -e LOG.{ordinal} && echo ready {ordinal} >> LOG || { touch LOG.{ordinal}; false; }";

#[test]
fn every_claim_of_every_template_comes_back_to_its_own_ordinal() {
    let set = Set::new(&NINE_TO_ELEVEN);
    assert_eq!(ordinals(&set.backup_json(&["--dry-run"])), [9, 10, 11]);
    set.backup(&[]).expect(0);
    set.restore(&[]).expect(0);
    for claim in NINE_TO_ELEVEN {
        assert_same(&set.live.join(claim), &set.back().join(claim));
    }
    assert_eq!(set.there().len(), 6, "{:?}", set.there());
}

#[test]
fn ordinals_are_saved_from_the_top_where_the_user_wants_that() {
    let set = Set::new(&["data-web-9", "data-web-10", "data-web-11"]);
    set.backup(&[]).expect(0);
    assert_eq!(ordinals(&set.backup_json(&["--dry-run", "--order", "descending"])), [11, 10, 9]);
}

#[test]
fn a_set_may_begin_at_any_ordinal_and_is_recorded_so() {
    let set = Set::new(&["data-web-5", "data-web-6", "data-web-7"]);
    set.backup(&[]).expect(0);
    let shown = set.keepset.json(["show", "shop/web"]);
    assert_eq!((&shown["manifest"]["set"]["start"], &shown["manifest"]["set"]["replicas"]), (&5.into(), &3.into()));
    set.restore(&[]).expect(0);
    assert_eq!(set.there(), ["data-web-5", "data-web-6", "data-web-7"]);
    set.backup(&["--start-ordinal", "4", "--replicas", "4"]).refused(13, "data-web-4");
}

#[test]
fn every_claim_is_whole_before_the_first_ordinal_starts_and_each_is_ready_before_the_next() {
    let set = Set::new(&NINE_TO_ELEVEN).with_starts(SECOND_TIME, "60s");
    set.backup(&[]).expect(0);
    set.restore(&[]).expect(0);
    let expected = [9, 10, 11].map(|ordinal| [format!("start {ordinal} 6 claims 0 marks"), format!("ready {ordinal}")]);
    assert_eq!(set.log(), expected.concat());
}

#[test]
fn nothing_starts_where_it_was_not_asked_for_or_only_a_part_came_back() {
    let set = Set::new(&NINE_TO_ELEVEN).with_starts("true", "60s");
    set.backup(&[]).expect(0);
    set.restore(&["--start", "none"]).expect(0);
    fs::remove_dir_all(set.back()).unwrap();
    set.restore(&["--claim", "wal"]).expect(0);
    assert_eq!(set.log(), [""; 0]);
}

#[test]
fn one_ordinal_that_cannot_be_filled_keeps_all_of_them_from_starting() {
    let set = Set::new(&["data-web-0", "data-web-1", "data-web-2"]).with_starts("true", "60s");
    set.backup(&[]).expect(0);
    let before = set.keepset.objects("data");
    set.fill("data-web-1");
    fs::write(
        set.live.join("data-web-1/new"),
        (0..400_000u32).flat_map(|at| at.wrapping_mul(2_246_822_519).to_le_bytes()).collect::<Vec<u8>>(),
    )
    .unwrap();
    set.backup(&[]).expect(0);
    // The data that only ordinal 1 of the second point has is the largest of the new packs: one bit of it turns.
    let new = set.keepset.objects("data").into_iter().filter(|pack| !before.contains(pack));
    let pack = new.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    let mut rights = fs::metadata(&pack).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o600);
    fs::set_permissions(&pack, rights).unwrap();
    fs::write(&pack, bytes).unwrap();

    let ran = set.restore(&["--parallel", "1"]).expect(1);
    assert!(ran.err.contains("nothing was started") && ran.err.contains("whole and in place: data-web-0"), "{}", ran.err);
    assert_eq!(set.log(), [""; 0]);
    assert_eq!(set.there(), [JOURNAL, "data-web-0"], "what was half filled is gone, and so is its mark");
    assert_same(&set.live.join("data-web-0"), &set.back().join("data-web-0"));
    assert!(set.keepset.objects("locks").is_empty());

    set.restore(&[]).refused(13, "is open: half filled");
    let undone = set.restore(&["--undo"]).expect(0);
    assert!(undone.out.contains("1 claim holds again what was there before"), "{}", undone.out);
    assert_eq!(set.there(), [""; 0]);
    set.restore(&["--undo"]).refused(13, "no restore of set shop/web is open");
}

#[test]
fn an_ordinal_that_does_not_get_ready_ends_the_starts_and_leaves_the_data() {
    let set = Set::new(&["data-web-0", "data-web-1", "data-web-2"]).with_starts("test {ordinal} -ne 1", "1s");
    set.backup(&[]).expect(0);
    let ran = set.restore(&[]).refused(1, "ready: 0");
    assert!(ran.err.contains("ordinal 1 was not ready within 1 s"), "{}", ran.err);
    assert_eq!(set.log(), ["start 0 3 claims 0 marks", "start 1 3 claims 0 marks"]);
    assert_eq!(set.there(), [JOURNAL, "data-web-0", "data-web-1", "data-web-2"]);

    set.restore(&["--undo"]).refused(13, "ordinals have been started");
    set.restore(&["--resume", "--start", "ordered"]).refused(2, "starts its ordinals as it set out to");
    set.restore(&["--resume"]).refused(1, "ready: 0");
    assert_eq!(set.log().last().unwrap(), "start 1 3 claims 0 marks", "what is up is not started again");
    let done = set.restore(&["--resume", "--start", "none"]).expect(0);
    assert!(done.out.contains("started, in this order: 0"), "{}", done.out);
    assert_eq!(set.there(), ["data-web-0", "data-web-1", "data-web-2"]);
}

#[test]
fn fewer_ordinals_come_back_where_fewer_are_asked_for_and_more_are_refused() {
    let set = Set::new(&NINE_TO_ELEVEN);
    set.backup(&[]).expect(0);
    set.restore(&["--ordinal", "10", "--ordinal", "12"]).refused(13, "has no ordinal 12: it has 9 to 11");
    assert_eq!(set.there(), [""; 0]);
    set.restore(&["--ordinal", "10"]).expect(0);
    assert_eq!(set.there(), ["data-web-10", "wal-web-10"]);
    set.restore(&["--ordinal", "11", "--claim", "wal"]).expect(0);
    assert_eq!(set.there(), ["data-web-10", "wal-web-10", "wal-web-11"]);
    set.restore(&[]).refused(13, "targets hold data");
}

#[test]
fn foreign_folders_are_named_and_left_as_they_are() {
    let set = Set::new(&["data-web-0", "data-web-1", "data-db-0", "data-web-01"]);
    let plan = set.backup_json(&["--dry-run"]);
    assert_eq!((ordinals(&plan), &plan["plans"][0]["foreign"]), (vec![0, 1], &serde_json::json!(["data-db-0", "data-web-01"])));
    set.backup(&[]).expect(0);
    fs::create_dir_all(set.back().join("data-db-0")).unwrap();
    fs::write(set.back().join("data-db-0/rows"), "precious").unwrap();
    set.restore(&[]).expect(0);
    assert_eq!(set.there(), ["data-db-0", "data-web-0", "data-web-1"]);
    assert_eq!(fs::read_to_string(set.back().join("data-db-0/rows")).unwrap(), "precious");
}

#[test]
fn a_claim_beside_the_targets_that_the_point_lacks_is_refused_without_its_flag() {
    let set = Set::new(&["data-web-0", "data-web-1"]);
    set.backup(&[]).expect(0);
    fs::create_dir_all(set.back().join("data-web-2")).unwrap();
    fs::write(set.back().join("data-web-2/rows"), "of another age").unwrap();
    let ran = set.restore(&[]).refused(13, "data-web-2");
    assert!(ran.err.contains("--allow-extra-claims"), "{}", ran.err);
    assert_eq!(set.there(), ["data-web-2"]);
    set.restore(&["--allow-extra-claims"]).expect(0);
    assert_eq!(fs::read_to_string(set.back().join("data-web-2/rows")).unwrap(), "of another age");
}

#[test]
fn an_empty_claim_that_was_full_is_refused_without_its_flag() {
    let set = Set::new(&["data-web-0", "data-web-1"]);
    set.backup(&[]).expect(0);
    set.remove("data-web-1");
    fs::create_dir(set.live.join("data-web-1")).unwrap();
    let ran = set.backup(&[]).refused(13, "data-web-1");
    assert!(ran.err.contains("--allow-empty"), "{}", ran.err);
    // Folders alone are no data either; that shows only when they are walked.
    fs::create_dir(set.live.join("data-web-1/conf")).unwrap();
    set.backup(&[]).refused(13, "data-web-1");
    assert_eq!(set.keepset.objects("snapshots").len(), 1);
    set.backup(&["--allow-empty"]).expect(0);
    set.restore(&[]).expect(0);
    assert_same(&set.live.join("data-web-1"), &set.back().join("data-web-1"));
}

#[test]
fn a_missing_claim_is_refused_and_with_its_flag_gives_a_partial_point_that_is_never_the_latest() {
    let set = Set::new(&["data-web-0", "data-web-1", "data-web-2"]);
    set.backup(&[]).expect(0);
    let whole = set.live.with_file_name("whole");
    fs::rename(set.live.join("data-web-1"), &whole).unwrap();
    let ran = set.backup(&[]).refused(13, "data-web-1");
    assert!(ran.err.contains("--allow-fewer-claims"), "{}", ran.err);
    set.backup(&["--allow-fewer-claims"]).expect(3);

    set.restore(&[]).expect(0);
    assert_same(&whole, &set.back().join("data-web-1"));
    fs::remove_dir_all(set.back()).unwrap();
    let partial =
        set.keepset.json(["list"])["points"].as_array().unwrap().iter().find(|point| point["complete"] == false).unwrap()["id"].clone();
    let ran = set.restore(&["--point", partial.as_str().unwrap()]).refused(13, "data-web-1");
    assert!(ran.err.contains("--allow-partial"), "{}", ran.err);
    set.restore(&["--point", partial.as_str().unwrap(), "--allow-partial"]).expect(0);
    assert_eq!(set.there(), ["data-web-0", "data-web-2"]);
}

#[test]
fn a_set_that_was_made_smaller_needs_the_flag_once_and_is_complete_then() {
    let set = Set::new(&["data-web-0", "data-web-1", "data-web-2"]);
    set.backup(&[]).expect(0);
    set.remove("data-web-2");
    let ran = set.backup(&[]).refused(13, "data-web-2 gone");
    assert!(ran.err.contains("--allow-fewer-claims"), "{}", ran.err);
    set.backup(&["--allow-fewer-claims"]).expect(0);
    set.backup(&[]).expect(0);
    set.fill("data-web-2");
    set.fill("data-web-3");
    set.backup(&[]).expect(0);
    set.restore(&[]).expect(0);
    assert_eq!(set.there(), ["data-web-0", "data-web-1", "data-web-2", "data-web-3"]);
}

#[test]
fn no_claims_at_all_are_refused() {
    let set = Set::new(&["data-db-0"]);
    set.backup(&[]).refused(13, "no claims");
}

#[test]
fn a_link_in_the_place_of_a_claim_is_refused_and_not_followed() {
    let set = Set::new(&["data-web-0"]);
    std::os::unix::fs::symlink("data-web-0", set.live.join("data-web-1")).unwrap();
    set.backup(&[]).refused(13, "data-web-1 has the name of a claim but is a symbolic link");
}

#[test]
fn another_name_moves_a_set_and_keeps_its_ordinals() {
    let set = Set::new(&["data-web-9", "data-web-10"]);
    set.backup(&[]).expect(0);
    set.restore(&["--to", "test/web-copy"]).expect(0);
    assert_eq!(set.there(), ["data-web-copy-10", "data-web-copy-9"]);
    assert_same(&set.live.join("data-web-10"), &set.back().join("data-web-copy-10"));
}

#[test]
fn a_half_restored_claim_is_neither_backed_up_nor_restored_into() {
    let set = Set::new(&["data-web-0", "data-web-1"]);
    set.backup(&[]).expect(0);
    // What a restore leaves that was killed while it filled ordinal 1.
    fs::create_dir_all(set.back()).unwrap();
    fs::write(set.back().join(".keepset-incomplete-data-web-1"), "run-of-yesterday").unwrap();
    set.restore(&[]).refused(13, "run-of-yesterday");
    fs::write(set.live.join(".keepset-incomplete-data-web-1"), "run-of-yesterday").unwrap();
    set.backup(&["--allow-empty", "--allow-fewer-claims"]).refused(13, "half restored");
}

#[test]
fn bytes_that_change_under_unchanged_times_are_saved_all_the_same() {
    let live = tempfile::tempdir_in("/dev/shm").unwrap();
    let set = Set { keepset: Keepset::new(), live: live.path().to_owned() };
    set.fill("data-web-0");
    let pages = set.live.join("data-web-0/pages");
    let mut mapped = support::mapped::Mapped::new(&pages);
    mapped.write(5000, b"first in place");
    set.backup(&[]).expect(0);
    let stat = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(path).unwrap();
        (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
    };
    let before = stat(&pages);
    mapped.write(5000, b"later in place");
    assert_eq!(stat(&pages), before, "nothing but the bytes may change, or this proves nothing");
    set.backup(&[]).expect(0);
    set.restore(&[]).expect(0);
    assert_same(&set.live.join("data-web-0"), &set.back().join("data-web-0"));
}

#[test]
fn bytes_that_change_under_unchanged_times_are_saved_where_everything_is_read() {
    let set = Set::new(&["data-web-0"]);
    set.backup(&[]).expect(0);
    let again = set.backup_json(&["--read-all"]);
    let total = &again["backups"][0]["total"];
    assert_eq!(total["movedBytes"], total["bytes"]);
}
