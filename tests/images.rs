//! Volumes without a file system: saved as an image, filled into another device byte for byte, and into a folder as a sparse file. A regular
//! file stands in for the device; the cluster suite has real ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use keepset::model::mover_job::{ClaimReport, FillClaim, FillMode, MoverReport, Task};
use keepset::mover::error::MoverError;
use keepset::repository::Repository;
use keepset::store::Store;
use proptest::prelude::*;
use support::tree::Dice;
use support::volumes::{attempt, fill_claim, folder, repository, run, save};

const PIECE: usize = 2 << 20;

/// So many bytes, some pieces of which are zeros.
fn disk(size: usize, seed: u64, blank: u64) -> Vec<u8> {
    let mut bytes = Dice(seed).bytes(size);
    for (number, piece) in bytes.chunks_mut(PIECE).enumerate() {
        if blank >> number & 1 == 1 {
            piece.fill(0);
        }
    }
    bytes
}

async fn fill(repository: &Repository, saved: &ClaimReport, target: &Path, mode: FillMode) -> Result<MoverReport, MoverError> {
    attempt(repository, Task::Fill(vec![fill_claim(saved, target, mode)])).await
}

/// Over a device that held something else, twice, and into a folder.
async fn comes_back(size: usize, more: usize, seed: u64, blank: (u64, u64)) {
    let temp = tempfile::tempdir().unwrap();
    let (source, target) = (temp.path().join("source"), temp.path().join("target"));
    let was = disk(size, seed | 1, blank.0);
    fs::write(&source, &was).unwrap();
    fs::write(&target, disk(size + more, seed | 2, blank.1)).unwrap();
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &source, None).await;
    assert_eq!((saved.files, saved.bytes, saved.problems.len()), (1, size as u64, 0));
    assert_eq!(save(&repository, &source, None).await.bytes, size as u64);

    fill(&repository, &saved, &target, FillMode::New).await.unwrap();
    let is = fs::read(&target).unwrap();
    assert!(is[..size] == was[..] && is[size..].iter().all(|byte| *byte == 0), "all of it, and zeros beyond");
    let again = fill(&repository, &saved, &target, FillMode::Replace).await.unwrap();
    assert_eq!((again.total.moved_bytes, again.total.stored_bytes, again.total.bytes), (0, 0, size as u64));

    let place = folder(temp.path(), "place");
    run(&repository, Task::Fill(vec![fill_claim(&saved, &place, FillMode::New)])).await;
    assert!(fs::read(place.join("data-web-0.img")).unwrap() == was);
    let blank = was.chunks(PIECE).filter(|piece| piece.iter().all(|byte| *byte == 0)).map(<[u8]>::len).sum::<usize>();
    let taken = fs::metadata(place.join("data-web-0.img")).unwrap().blocks() * 512;
    assert!(taken <= (size - blank) as u64 + (64 << 10), "{taken} bytes for {size} of which {blank} are zeros");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn any_device_comes_back_over_any_other(
        size in 0usize..5 * PIECE,
        more in prop_oneof![Just(0), 0usize..PIECE],
        seed in any::<u64>(),
        blank in any::<(u64, u64)>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(comes_back(size, more, seed << 2, blank));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_device_that_was_changed_in_place_only_what_differs_is_stored_and_written_back() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fs::write(&source, disk(6 * PIECE, 1, 0b10)).unwrap();
    let repository = repository(Store::memory()).await;
    let first = save(&repository, &source, None).await;
    let file = fs::File::options().write(true).open(&source).unwrap();
    file.write_all_at(b"changed", 3 * PIECE as u64 + 5).unwrap();
    let second =
        attempt(&repository, support::volumes::save_claim(&source, None, 0, keepset::model::manifest::ChangeDetection::Content)).await;
    assert_eq!(second.unwrap().total.new_bytes, PIECE as u64);
    let back = fill(&repository, &first, &source, FillMode::Replace).await.unwrap();
    assert_eq!(back.total.moved_bytes, PIECE as u64);
    assert!(fs::read(&source).unwrap() == disk(6 * PIECE, 1, 0b10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_too_small_or_a_point_that_is_no_image_is_refused_before_anything_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let (source, small) = (temp.path().join("source"), temp.path().join("small"));
    fs::write(&source, disk(PIECE, 1, 0)).unwrap();
    fs::write(&small, vec![7; PIECE - 1]).unwrap();
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &source, None).await;
    let refused = fill(&repository, &saved, &small, FillMode::New).await;
    assert!(matches!(refused, Err(MoverError::TooSmall { .. })), "{refused:?}");
    let part = FillClaim { paths: vec!["data-web-0.img".into()], ..fill_claim(&saved, &source, FillMode::Replace) };
    assert!(matches!(attempt(&repository, Task::Fill(vec![part])).await, Err(MoverError::WholeOnly { .. })));
    let files = folder(temp.path(), "files");
    fs::write(files.join("a"), "a").unwrap();
    fs::write(files.join("b"), "b").unwrap();
    let files = save(&repository, &files, None).await;
    let refused = fill(&repository, &files, &small, FillMode::New).await;
    assert!(matches!(refused, Err(MoverError::NoImage { .. })), "{refused:?}");
    assert!(fs::read(&small).unwrap() == vec![7; PIECE - 1]);
}
