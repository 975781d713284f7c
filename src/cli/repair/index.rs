//! `keepset repair index`: the index made right again from the packs.

use crate::cli::exit::ExitCode;
use crate::cli::output::Output;
use crate::cli::progress::Shown;
use crate::cli::stop::{Stop, unless_stopped};
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::Span;
use crate::repository::lock::{Lock, Mode};
use crate::repository::repair::index::{IndexRepair, RepairOptions, repair};

/// Make the index right again from what the packs say
///
/// Examples:
///   keepset repair index --dry-run
///   keepset repair index
///   keepset repair index --read-all-packs      also where index objects are readable but wrong
///
/// Index objects that cannot be read are replaced, packs that no index object names are added, and packs
/// that are gone are dropped. No pack is changed or removed. The repository is held alone meanwhile.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct IndexArgs {
    /// Believe no index object: compare each with the headers of its packs
    #[arg(long)]
    read_all_packs: bool,

    /// Say what is wrong, and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// How long to wait for others that use the repository
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,
}

pub async fn run(args: &IndexArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let repository = wire.repository().await?;
    let shown = Shown::new(wire.output);
    let options = wire.lock_options(wire.wait_lock(args.wait_lock));
    let lock = unless_stopped(stop.clone(), async { Ok(Lock::acquire(&repository, Mode::Exclusive, &options, &shown).await?) }).await?;
    let options = RepairOptions { read_all_packs: args.read_all_packs, dry_run: args.dry_run };
    let repaired = unless_stopped(stop, async { Ok(repair(&repository, &lock, options, &shown).await?) }).await;
    shown.clear();
    let released = lock.release().await;
    let repaired = repaired?;
    if let Err(error) = released {
        wire.output.warn(&format!("the lock could not be removed: {error}; `keepset unlock` does it"));
    }
    if wire.output.is_json() {
        wire.output.json(&repaired)?;
    } else {
        text(&repaired, args.dry_run, wire.output)?;
    }
    Ok(if repaired.packs_unreadable.is_empty() { ExitCode::Done } else { ExitCode::Partial })
}

fn text(repaired: &IndexRepair, dry_run: bool, output: Output) -> anyhow::Result<()> {
    for object in &repaired.unreadable {
        output.line(&format!("index object {} is unreadable: {}", object.id.short(), object.reason))?;
    }
    for id in &repaired.replaced {
        output.line(&format!("index object {} says what is not so", id.short()))?;
    }
    for id in &repaired.packs_gone {
        output.line(&format!("pack {} is gone, and is dropped from the index", id.short()))?;
    }
    for id in &repaired.packs_added {
        output.line(&format!("pack {} was not in the index, and is added", id.short()))?;
    }
    for id in &repaired.packs_corrected {
        output.line(&format!("pack {} was described wrongly", id.short()))?;
    }
    for pack in &repaired.packs_unreadable {
        output.line(&format!("pack {} does not say what it holds, and is left as it is: {}", pack.id.short(), pack.reason))?;
    }
    let old = repaired.unreadable.len() + repaired.replaced.len();
    let kept = words::count(repaired.kept, "index object is", "index objects are");
    if !repaired.is_change() {
        output.line(&format!("the index needs no repair: {kept} right"))?;
    } else if dry_run {
        output.line(&format!("{kept} right, {old} would be replaced; nothing was changed"))?;
    } else {
        let written = words::count(repaired.written.len() as u64, "new one", "new ones");
        output.line(&format!("{kept} right, {old} replaced, {written} written"))?;
        output.note("`keepset check` tells whether everything is there now");
    }
    Ok(())
}
