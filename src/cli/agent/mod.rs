//! `keepset agent`: everything that is to be done again and again, when it is due.

mod child;
mod ledger;
mod program;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::agent::{Agent, Ending, Health, Outcome, Task, serve};
use crate::cli::agent::program::Program;
use crate::cli::cluster::ClusterArgs;
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::Output;
use crate::cli::stop::Stop;
use crate::cli::wire::Wire;
use crate::config::Span;
use crate::model::set::SetName;
use crate::telemetry::metrics::Metrics;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);

/// Back up, forget, prune and check when it is due, and serve health and metrics
///
/// Examples:
///   keepset agent                     until it is told to stop
///   keepset agent --once              what is due now, for a CronJob or a timer
///
/// What is due and when stands in the settings, and in annotations of StatefulSets
/// (keepset.dev/schedule). Settings are read anew when their file changes. Last runs are read from the
/// points, so that an agent that was down knows what it missed.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct AgentArgs {
    /// Do what is due now, and end: exit code 1 says that something failed, 3 that a point is partial
    #[arg(long)]
    once: bool,

    /// How long what is at work may take to end by itself when the agent is told to stop
    #[arg(long, value_name = "SPAN", env = "KEEPSET_GRACE", default_value = "100s", hide_env_values = true)]
    grace: Span,

    #[command(flatten)]
    in_cluster: ClusterArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    tasks: Vec<Done>,
}

/// One task that was due.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    task: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<SetName>,
    result: &'static str,
    detail: String,
}

/// Runs until it is told to stop, or with `--once` until nothing is due any more.
pub async fn run(args: &AgentArgs, wire: Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    wire.location()?;
    let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
    let (clock, output) = (wire.clock.clone(), wire.output);
    let listen = wire.settings.agent.listen.unwrap_or(LISTEN);
    let world = Arc::new(Program::new(wire, args.in_cluster.clone(), Arc::clone(&metrics)).await?);
    let agent =
        Agent { world, clock: clock.clone(), metrics: Arc::clone(&metrics), health: Arc::clone(&health), grace: args.grace.0, stop };
    if args.once {
        let done = agent.once().await.map_err(|error| CliError::failed(error, "`keepset doctor` looks for the cause"))?;
        return tell(&done, output);
    }
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} (agent.listen in the settings)"))?;
    tracing::info!("health and metrics are at http://{}", listener.local_addr().unwrap_or(listen));
    let served = tokio::spawn(serve(listener, health, metrics, clock));
    agent.run().await;
    served.abort();
    Ok(ExitCode::Done)
}

fn tell(done: &[(Task, Outcome)], output: Output) -> anyhow::Result<ExitCode> {
    let tasks: Vec<Done> = done
        .iter()
        .map(|(task, outcome)| Done {
            task: task.kind(),
            set: task.set().cloned(),
            result: outcome.ending.as_str(),
            detail: outcome.detail.clone(),
        })
        .collect();
    if output.is_json() {
        output.json(&Answer { tasks })?;
    } else if tasks.is_empty() {
        output.note("nothing is due");
    } else {
        done.iter().try_for_each(|(task, outcome)| output.line(&format!("{task}: {outcome}")))?;
    }
    let any = |wanted: Ending| done.iter().any(|(_, outcome)| outcome.ending == wanted);
    Ok(match () {
        () if any(Ending::Failed) || any(Ending::Refused) => ExitCode::Failed,
        () if any(Ending::Interrupted) => ExitCode::Interrupted,
        () if any(Ending::Partial) => ExitCode::Partial,
        () => ExitCode::Done,
    })
}
