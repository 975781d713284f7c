//! Fuzzes the entry point `bundle`.
#![no_main]

#[path = "../../tests/support/crafted.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod crafted;
#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::run("bundle", data));
