//! `keepset drill`: a restore on trial, beside the original, proven and removed again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::cluster::{self, ClusterArgs};
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone};
use crate::cli::point_args::PointArgs;
use crate::cli::progress::Shown;
use crate::cli::stop::Stop;
use crate::cli::submit;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{self, DrillSettings, ProbeSettings, Span};
use crate::drill::{Drill, DrillOptions, DrillReport};
use crate::model::set::SetName;
use crate::platform::folders::{FolderScratch, FoldersOptions};
use crate::platform::kubernetes::ClusterScratch;
use crate::platform::{Platform, Probe, Scratch};

/// Restore a set on trial, prove every byte, let a command look at it, and remove it again
///
/// Examples:
///   keepset drill shop/web                                    the latest complete point
///   keepset drill shop/web --scratch /srv/drills --point 1a2b3c4d
///   keepset drill shop/web --probe "test -s {claim:data}/conf/app.yaml"
///   keepset drill shop/db --namespace shop-drills --profile postgresql
///
/// The original is not touched. The point is restored the way `restore` does it, to a folder of the
/// drill's own, or to claims of its own in another namespace of the cluster; then all of it is read
/// again and compared with the point, and the probe is run on each ordinal. What was restored is removed whatever comes of it. Exit code 1
/// says that the point did not come back, or that a probe failed.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DrillArgs {
    /// The set
    #[arg(value_name = "NAMESPACE/NAME")]
    set: SetName,

    #[command(flatten)]
    which: PointArgs,

    /// Restore to a new folder in DIR; the folder for temporary files where nothing else is said
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Restore to this namespace of the cluster, which has keepset's Role and Secret
    #[arg(long, value_name = "NAME", conflicts_with = "scratch")]
    namespace: Option<String>,

    /// Run this on each ordinal once all are proven; {claim}, {claim:TEMPLATE}, {ordinal} are replaced, and no shell is involved
    #[arg(long, value_name = "COMMAND")]
    probe: Option<String>,

    /// A probe that comes with keepset: etcd, mysql, postgresql or redis
    #[arg(long, value_name = "NAME", conflicts_with = "probe")]
    profile: Option<String>,

    /// In a cluster: the image that has the probe's program
    #[arg(long, value_name = "IMAGE")]
    probe_image: Option<String>,

    /// How long the probe may take for one ordinal; 60s where left out
    #[arg(long, value_name = "SPAN")]
    probe_timeout: Option<Span>,

    /// In a cluster: start the application too, on what was restored, where it can reach nobody but itself; every ordinal must become ready
    #[arg(long)]
    start_app: bool,

    /// Ordinals to restore at a time
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: Option<u32>,

    /// How long to wait for another that holds the repository alone
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,

    #[command(flatten)]
    in_cluster: ClusterArgs,
}

/// Where a drill takes place.
enum Where {
    /// In a new folder in this one.
    Beside(PathBuf),
    /// In this namespace of the cluster.
    Namespace(String),
}

/// Drills, and tells the verdict.
pub async fn run(args: &DrillArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let none = DrillSettings::default();
    let settings = wire.set_settings(&args.set).and_then(|set| set.drill.as_ref()).unwrap_or(&none);
    // What is wrong with the arguments is said before anything is begun.
    let place = place(args, wire, settings)?;
    let probe = probe(args, settings, &place)?;
    let starts_app = starts_app(args, settings, &place)?;
    if let Where::Namespace(namespace) = &place
        && cluster::is_submitted(&args.in_cluster, wire, None)
    {
        let there = SetName::new(namespace, &args.set.name)?;
        return submit::run(&args.in_cluster, wire, ("drill", &args.set, &there), stop, |line| wire.output.line(line)).await;
    }
    let mut scratch = scratch(args, wire, place, starts_app).await?;
    let options = DrillOptions { start_app: starts_app, ..options(args, wire, scratch.platform().as_ref(), probe)? };
    let shown = Arc::new(Shown::new(wire.output));
    let drill = Drill {
        repository: wire.repository().await?,
        clock: wire.clock.clone(),
        monitor: shown.clone(),
        identity: wire.identity(),
        cancel: stop,
    };
    let report = drill.run(&args.set, scratch.as_mut(), &options).await;
    shown.clear();
    let report = report?;
    if wire.output.is_json() {
        wire.output.json(&report)?;
    } else {
        text(&report, options.probe.as_ref(), wire.output)?;
    }
    Ok(match (report.passed, report.is_whole()) {
        (false, _) => ExitCode::Failed,
        (true, false) => ExitCode::Partial,
        (true, true) => ExitCode::Done,
    })
}

fn place(args: &DrillArgs, wire: &Wire, settings: &DrillSettings) -> Result<Where, CliError> {
    if let Some(namespace) = &args.namespace {
        return Ok(Where::Namespace(namespace.clone()));
    }
    if let Some(folder) = &args.scratch {
        return Ok(Where::Beside(folder.clone()));
    }
    if let Some(namespace) = &settings.namespace {
        return Ok(Where::Namespace(namespace.clone()));
    }
    let is_of_folders = wire.set_settings(&args.set).is_some_and(|set| set.from.is_some());
    let knows_a_cluster = wire.settings.kubernetes.is_some() || Wire::is_in_cluster();
    match &settings.scratch {
        Some(folder) => Ok(Where::Beside(folder.clone())),
        None if is_of_folders || !knows_a_cluster => Ok(Where::Beside(std::env::temp_dir())),
        None => {
            let hint = "give a namespace of the cluster that has keepset's Role and Secret: --namespace NAME, or `drill.namespace` in the \
                        settings; or a folder of this machine: --scratch DIR";
            Err(CliError::usage("nothing says where the set is to be restored for the drill", hint))
        }
    }
}

async fn scratch(args: &DrillArgs, wire: &Wire, place: Where, starts_app: bool) -> anyhow::Result<Box<dyn Scratch>> {
    Ok(match place {
        Where::Beside(folder) => {
            let templates = wire.set_settings(&args.set).map(|set| set.templates.clone()).unwrap_or_default();
            let options = FoldersOptions { templates, ..wire.folders(folder.clone())? };
            Box::new(FolderScratch::new(folder, args.set.clone(), options))
        }
        Where::Namespace(namespace) => {
            let namespace = SetName::new(&namespace, &args.set.name)?.namespace;
            let cluster = cluster::kubernetes(&args.in_cluster, wire).await?;
            let new = if starts_app { ClusterScratch::with_app } else { ClusterScratch::new };
            Box::new(new(cluster, &args.set, &namespace))
        }
    })
}

fn starts_app(args: &DrillArgs, settings: &DrillSettings, place: &Where) -> Result<bool, CliError> {
    let hint = "give another namespace of the cluster: --namespace NAME, or `drill.namespace` in the settings";
    match place {
        _ if !args.start_app && settings.start_app != Some(true) => Ok(false),
        Where::Beside(_) => Err(CliError::usage("only a set in a cluster has an application that a drill could start", hint)),
        Where::Namespace(namespace) if *namespace == args.set.namespace => {
            Err(CliError::usage("the application is not started beside the original, in the same namespace", hint))
        }
        Where::Namespace(_) => Ok(true),
    }
}

/// What the flags say goes over what the settings say.
fn probe(args: &DrillArgs, settings: &DrillSettings, place: &Where) -> anyhow::Result<Option<Probe>> {
    let mut probe = ProbeSettings::default();
    if let Some(name) = args.profile.as_ref().or(settings.profile.as_ref()) {
        probe = config::profile(name).map_err(|_| {
            let hint = "there are etcd, mysql, postgresql and redis; --probe runs any command";
            CliError::usage(format!("there is no profile `{name}`"), hint)
        })?;
    }
    if let Some(own) = &settings.probe {
        // A profile that is asked for by flag is not the one that the settings' command was written for.
        let own = if args.profile.is_some() { ProbeSettings { command: Vec::new(), ..own.clone() } } else { own.clone() };
        probe = probe.under(&own);
    }
    if let Some(command) = &args.probe {
        let words = shlex::split(command).filter(|words| !words.is_empty());
        probe.command = words.ok_or_else(|| {
            CliError::usage(format!("--probe {command:?} is no command"), "give a program and its arguments, quoted as for a shell")
        })?;
    }
    probe.timeout = args.probe_timeout.or(probe.timeout);
    probe.image = args.probe_image.clone().or(probe.image);
    let probe = probe.probe();
    if matches!(place, Where::Namespace(_)) && probe.as_ref().is_some_and(|probe| probe.image.is_none()) {
        let hint = "name one that has the program: --probe-image IMAGE, or `drill.probe.image` in the settings";
        return Err(CliError::usage("a probe in a cluster is a pod, and no image is given for it", hint).into());
    }
    Ok(probe)
}

fn options(args: &DrillArgs, wire: &Wire, platform: &dyn Platform, probe: Option<Probe>) -> Result<DrillOptions, CliError> {
    Ok(DrillOptions {
        point: args.which.point.clone(),
        cluster: args.which.cluster(wire),
        allow_partial: args.which.allow_partial,
        probe,
        parallel: wire.parallel(args.parallel, &args.set, platform),
        memory: wire.memory(),
        location: wire.location()?.to_owned(),
        wait_lock: wire.wait_lock(args.wait_lock),
        ..DrillOptions::default()
    })
}

/// Differences that are told one by one; JSON has all of them.
const TOLD: usize = 20;

fn text(report: &DrillReport, probe: Option<&Probe>, output: Output) -> Result<(), CliError> {
    let verdict = if report.passed {
        output.tone(Tone::Good, "proven")
    } else if report.proven {
        output.tone(
            Tone::Bad,
            if report.app.is_some() { "proven, but its application did not start" } else { "proven, but its probe failed" },
        )
    } else {
        output.tone(Tone::Bad, "did not come back as it is")
    };
    let took = words::duration(Duration::from_secs_f64(report.seconds));
    output.line(&format!(
        "point {} of {}, {}: {verdict}; {took}",
        report.point.short(),
        report.set,
        crate::clock::shown_text(&report.time)
    ))?;
    for claim in &report.claims {
        let content = format!("{} in {}", words::bytes(claim.bytes), words::count(claim.files, "file", "files"));
        let state = match (claim.differences.len() as u64, claim.problems.len() as u64) {
            (0, 0) => "as in the point".to_owned(),
            (0, lacking) => output.tone(Tone::Caution, &format!("as in the point, with {}", words::count(lacking, "problem", "problems"))),
            (others, _) => output.tone(Tone::Bad, &words::count(others, "difference", "differences")),
        };
        output.line(&format!("  {}  {content}: {state}", claim.name))?;
        for problem in claim.differences.iter().take(TOLD) {
            output.line(&format!("    {}: {}", problem.path, problem.reason))?;
        }
        if claim.differences.len() > TOLD {
            output.line(&format!("    and {} more, which --json lists", claim.differences.len() - TOLD))?;
        }
    }
    for probe in &report.probes {
        let state = if probe.passed { output.tone(Tone::Good, "passed") } else { output.tone(Tone::Bad, "failed") };
        let said = if probe.said.is_empty() { String::new() } else { format!(": {}", probe.said) };
        output.line(&format!("  probe of ordinal {}: {state} ({}){said}", probe.ordinal, probe.how))?;
    }
    if let Some(app) = &report.app {
        let state = if app.passed { output.tone(Tone::Good, "started") } else { output.tone(Tone::Bad, "did not start") };
        let ready = words::count(app.ready.len() as u64, "ordinal", "ordinals");
        let reason = app.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        output.line(&format!("  application: {state}, {ready} ready{reason}"))?;
    }
    if probe.is_some() && report.probes.is_empty() {
        output.note("the probe was not run, since the data is not what it should be");
    }
    if probe.is_none() && report.app.is_none() {
        output.note("no probe was given: whether the application can live with this data, --probe or --profile finds out");
    }
    output.line(&format!("removed again: {}", report.place))
}
