//! The binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The process holds the repository's key: no core dump has it, and no other process of the same user reads it from memory. What
    // keepset starts is not concerned. Where the kernel refuses, work goes on as before.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    keepset::cli::main(std::env::args_os()).into()
}
