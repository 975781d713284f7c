//! `keepset reach`: whether a pod's network lets it out, told by a pod.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::Output;
use crate::model::pod_words::{CUT_OFF, NEVER_REACHED, REACHED};

const TRY: Duration = Duration::from_secs(1);
/// Out of reach for so many tries is out of reach.
const CERTAIN: u32 = 10;
/// How long it may take until the API server is reached at first.
const WITHIN: Duration = Duration::from_secs(30);
/// How long a policy may take to act.
const ACTS_WITHIN: Duration = Duration::from_secs(60);

/// Try to reach the API server until that is cut off: a pod that a drill starts
#[derive(Clone, Debug, clap::Args)]
pub struct Reach {}

/// Says when it is reached, and when no more; fails where that does not come.
pub async fn run(output: Output) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) else {
        return Err(CliError::usage("this is no pod", "a drill with --start-app starts one that does this").into());
    };
    let port: u16 = port.parse().map_err(|_| CliError::usage(format!("`{port}` is no port"), ""))?;
    let reached = async || matches!(timeout(TRY, TcpStream::connect((host.as_str(), port))).await, Ok(Ok(_)));
    let began = Instant::now();
    while !reached().await {
        if began.elapsed() > WITHIN {
            output.line(NEVER_REACHED)?;
            return Ok(ExitCode::Failed);
        }
        sleep(TRY).await;
    }
    output.line(REACHED)?;
    let (began, mut failed) = (Instant::now(), 0);
    while failed < CERTAIN {
        if began.elapsed() > ACTS_WITHIN {
            return Ok(ExitCode::Failed);
        }
        sleep(TRY / 2).await;
        failed = if reached().await { 0 } else { failed + 1 };
    }
    output.line(CUT_OFF)?;
    Ok(ExitCode::Done)
}
