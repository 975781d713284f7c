//! What a run is called, in the repository and everywhere else.

use chrono::SecondsFormat;
use data_encoding::HEXLOWER;

use crate::clock::Clock;
use crate::repository::error::RepositoryError;

/// A new run's id: sorts by time for people, and is never given twice.
pub fn new_id(clock: &Clock) -> Result<String, RepositoryError> {
    let mut bytes = [0u8; 4];
    crate::random::fill(&mut bytes)?;
    let time = clock.now().to_rfc3339_opts(SecondsFormat::Secs, true).replace([':', '-'], "").to_lowercase();
    Ok(format!("{time}-{}", HEXLOWER.encode(&bytes)))
}
