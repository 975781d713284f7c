//! keepset backs up and restores the volumes of StatefulSets as one thing: every ordinal, every claim, one recovery point.
//!
//! The floor plan, from the top: a room imports rooms of lower floors only, and `tests/floors.rs` keeps it so.
//!
//! - 7 `cli`: arguments, one file per verb, wiring, output, exit codes
//! - 6 `config`: settings from file, environment and flags
//! - 5 `agent`: what is due is done, and told; `drill`: a restore beside the original, proven and removed again; `doctor`: what is missing, and its fix
//! - 4 `backup`, `restore`: pure plans and what carries them out; they never meet each other
//! - 3 `mover`: one ordinal's volumes to or from the repository; `hooks`: commands in pods around a cut
//! - 2 `repository`: the restic v2 repository: chunks, packs, index, trees, snapshots, locks, keys
//! - 1 `store`, `platform`, `volume`, `retention`, `schedule`, `telemetry`: the doors, which never meet each other
//! - 0 `model`, `clock`, `random`, `monitor`: nouns and the three seams that every floor may use

// Suites that are shared with the tests outside name this crate as they do.
#[cfg(test)]
extern crate self as keepset;

pub mod agent;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod drill;
pub mod hooks;
pub mod model;
pub mod monitor;
pub mod mover;
pub mod platform;
pub mod random;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod store;
pub mod telemetry;
pub mod volume;
