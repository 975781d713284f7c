//! The binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    keepset::cli::main(std::env::args_os()).into()
}
