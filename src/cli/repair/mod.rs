//! `keepset repair`: what can be mended in a damaged repository. One file for each thing that is mended.

mod index;
mod points;

use clap::Subcommand;

use crate::cli::exit::ExitCode;
use crate::cli::stop::Stop;
use crate::cli::wire::Wire;

/// Mend a damaged repository, as far as that is possible
///
/// Examples:
///   keepset repair index --dry-run
///   keepset repair index
///   keepset repair points
///
/// `keepset check` tells what is damaged.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RepairArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Index(index::IndexArgs),
    Points(points::PointsArgs),
}

pub async fn run(args: &RepairArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Index(args) => index::run(args, wire, stop).await,
        What::Points(args) => points::run(args, wire, stop).await,
    }
}
