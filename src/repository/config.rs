//! The repository's own record of itself: the object `config`, sealed and not compressed.

use serde::{Deserialize, Serialize};

use crate::repository::chunk::Chunker;
use crate::repository::chunk::gear::Gear;
use crate::repository::chunk::rabin::{self, Rabin};
use crate::repository::error::RepositoryError;

/// Its name in the store.
pub const KEY: &str = "config";

/// Restic's fields, and one of ours that other readers ignore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    /// Hex digits of an irreducible polynomial of degree 53 over GF(2).
    pub chunker_polynomial: String,
    #[serde(rename = "x-keepset", default, skip_serializing_if = "Option::is_none")]
    pub keepset: Option<Extension>,
}

/// Stands only in repositories that keepset made: how it cuts there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    pub chunker: ChunkerConfig,
}

/// Cut points are part of the format: with other parameters nothing would deduplicate against what is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChunkerConfig {
    /// `gear-1`.
    pub kind: String,
    /// Hex digits of 32 random bytes that the gear table is made from.
    pub seed: String,
    pub min: u32,
    pub normal: u32,
    pub max: u32,
}

impl Config {
    /// A new repository's: random id, polynomial and seed.
    pub fn random() -> Result<Self, RepositoryError> {
        let mut bytes = [0u8; 64];
        crate::random::fill(&mut bytes)?;
        let hex = |part: &[u8]| data_encoding::HEXLOWER.encode(part);
        Ok(Config {
            version: 2,
            id: hex(&bytes[..32]),
            chunker_polynomial: format!("{:x}", rabin::random_polynomial()?),
            keepset: Some(Extension { chunker: ChunkerConfig::new(hex(&bytes[32..])) }),
        })
    }

    /// How files are cut in this repository: our way where we made it, restic's in one that we adopted.
    pub fn chunker(&self) -> Result<Chunker, RepositoryError> {
        let unsupported = |reason: String| RepositoryError::Unsupported { what: "the repository's chunker".to_owned(), reason };
        if let Some(Extension { chunker }) = &self.keepset {
            return Gear::from_config(chunker).map(Chunker::Gear).map_err(unsupported);
        }
        let polynomial = u64::from_str_radix(&self.chunker_polynomial, 16)
            .ok()
            .filter(|p| rabin::is_usable(*p))
            .ok_or_else(|| unsupported("its polynomial is not an irreducible one of degree 53".to_owned()))?;
        Ok(Chunker::Rabin(Rabin::new(polynomial)))
    }
}

impl ChunkerConfig {
    fn new(seed: String) -> Self {
        ChunkerConfig { kind: "gear-1".to_owned(), seed, min: 512 << 10, normal: 1 << 20, max: 2 << 20 }
    }
}
