//! `keepset ls`: the files of a point.

use crate::cli::entries::{self, EntryView};
use crate::cli::exit::ExitCode;
use crate::cli::output::Output;
use crate::cli::view;
use crate::cli::wire::Wire;
use crate::model::entry::Entry;
use crate::model::id::Id;
use crate::model::path_text::path_text;
use crate::repository::points::list_points;
use crate::repository::reader::Reader;

/// List the files of a point
///
/// Examples:
///   keepset ls latest                            its claims
///   keepset ls 1a2b3c4d data-web-0/conf          one folder
///   keepset ls -lR shop/web data-web-0           everything below, with owners, sizes and times
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Ls {
    /// The first digits of a point's id, NAMESPACE/NAME, or latest
    point: String,

    /// A claim, or a path below one
    #[arg(value_name = "CLAIM/PATH")]
    path: Option<String>,

    /// Owners, sizes and times too
    #[arg(long, short)]
    long: bool,

    /// All folders below as well
    #[arg(long, short = 'R')]
    recursive: bool,
}

/// Lists a folder, a file, or all claims; with `--json` one object on each line.
pub async fn run(args: &Ls, wire: &Wire) -> anyhow::Result<ExitCode> {
    let reader = wire.reader().await?;
    let points = list_points(&reader, None).await?;
    let point = view::pick(&points, &args.point, wire)?;
    let lister = Lister { reader: &reader, output: wire.output, long: args.long, recursive: args.recursive };
    let Some(path) = args.path.as_deref().filter(|path| !path.trim_matches('/').is_empty()) else {
        for claim in &point.claims {
            let Some(tree) = claim.tree else { continue };
            let name = &claim.record.name;
            let root = Entry {
                name: name.as_bytes().to_vec(),
                kind: crate::model::entry::Kind::Dir { subtree: Some(tree) },
                attrs: claim.root.clone(),
            };
            lister.entry(name, &root)?;
            if args.recursive {
                lister.folder(name, tree).await?;
            }
        }
        return Ok(ExitCode::Done);
    };
    let (claim, rest) = view::claim_of(point, path)?;
    let name = claim.record.name.as_str();
    let Some(tree) = claim.tree else {
        let hint = claim.record.reason.clone().unwrap_or_else(|| "`keepset show` tells why".to_owned());
        return Err(crate::cli::error::CliError::failed(format!("claim {name} is not in point {}", point.point.id.short()), hint).into());
    };
    if rest.trim_matches('/').is_empty() {
        lister.folder(name, tree).await?;
        return Ok(ExitCode::Done);
    }
    let entry = entries::find(&reader, tree, name, rest).await?;
    let path = format!("{name}/{}", rest.trim_matches('/'));
    match entries::subtree(&entry, &path)? {
        Some(tree) => lister.folder(&path, tree).await?,
        None => lister.entry(&path, &entry)?,
    }
    Ok(ExitCode::Done)
}

struct Lister<'a> {
    reader: &'a Reader,
    output: Output,
    long: bool,
    recursive: bool,
}

impl Lister<'_> {
    fn entry(&self, path: &str, entry: &Entry) -> anyhow::Result<()> {
        if self.output.is_json() {
            self.output.json_line(&EntryView::of(path.to_owned(), entry))?;
        } else if self.long {
            self.output.line(&entries::long_line(path, entry))?;
        } else {
            self.output.line(path)?;
        }
        Ok(())
    }

    /// Depth first, as the names are sorted; what is still to be listed waits on a stack, so that depth costs no call frames, and all
    /// levels share one path, so that it costs no memory either.
    async fn folder(&self, path: &str, tree: Id) -> anyhow::Result<()> {
        let mut path = path.to_owned();
        let mut waiting = vec![(path.len(), self.reader.entries(&tree).await?)];
        while let Some((length, entries)) = waiting.last_mut() {
            path.truncate(*length);
            let Some(entry) = entries.next().transpose()? else {
                waiting.pop();
                continue;
            };
            path.push('/');
            path.push_str(&path_text(&entry.name));
            self.entry(&path, &entry)?;
            if self.recursive
                && let Some(tree) = entries::subtree(&entry, &path)?
            {
                waiting.push((path.len(), self.reader.entries(&tree).await?));
            }
        }
        Ok(())
    }
}
