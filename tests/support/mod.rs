//! What several test programs share.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

pub mod azurite;
pub mod bucket;
pub mod cluster;
pub mod compare;
pub mod contract;
pub mod crafted;
pub mod double;
pub mod ground;
pub mod house;
pub mod keepset;
pub mod kill;
pub mod mapped;
pub mod minio;
pub mod mutate;
pub mod proxy;
pub mod restic;
pub mod tree;
pub mod volumes;
