//! `keepset dump`: one file of a point to standard output.

use futures::{StreamExt, TryStreamExt};

use crate::cli::entries;
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::view;
use crate::cli::wire::Wire;
use crate::model::entry::Kind;
use crate::repository::points::list_points;

/// Chunks that are fetched ahead of what is written.
const AHEAD: usize = 4;

/// Write one file of a point to standard output
///
/// Examples:
///   keepset dump latest data-web-0/conf/app.yaml
///   keepset dump shop/db data-db-0/dump.sql | psql
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Dump {
    /// The first digits of a point's id, NAMESPACE/NAME, or latest
    point: String,

    /// A file: the claim's name, then the path below it
    #[arg(value_name = "CLAIM/PATH")]
    path: String,
}

/// Writes the file's bytes, each chunk proven before it is written.
pub async fn run(args: &Dump, wire: &Wire) -> anyhow::Result<ExitCode> {
    let reader = wire.reader().await?;
    let points = list_points(&reader, None).await?;
    let point = view::pick(&points, &args.point, wire)?;
    let (claim, rest) = view::claim_of(point, &args.path)?;
    let name = claim.record.name.as_str();
    let not_there = || CliError::failed(format!("claim {name} is not in point {}", point.point.id.short()), "`keepset show` tells why");
    let entry = entries::find(&reader, claim.tree.ok_or_else(not_there)?, name, rest).await?;
    let Kind::File { content } = entry.kind else {
        let hint = "`keepset ls` lists a folder, `keepset restore --path` brings it back";
        return Err(CliError::usage(format!("{} is no regular file", args.path), hint).into());
    };
    let reader = &reader;
    let mut chunks = futures::stream::iter(content.iter()).map(|id| async move { reader.chunk(id).await }).buffered(AHEAD);
    while let Some(chunk) = chunks.try_next().await? {
        wire.output.bytes(&chunk)?;
    }
    Ok(ExitCode::Done)
}
