//! `keepset mover`: the worker's end of the pipe. Orders and the repository's key come by standard input, lines of JSON go out.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data_encoding::BASE64;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use crate::cli::error::CliError;
use crate::cli::exit::{ExitCode, of_failure};
use crate::cli::output::{Output, chain_text};
use crate::cli::stop::Stop;
use crate::cli::wire::{self, Wire};
use crate::clock::Clock;
use crate::model::mover_job::{FailureKind, MoverJob, MoverLine, MoverReport};
use crate::model::pod_words::JOB;
use crate::mover::counters::Counters;
use crate::mover::error::MoverError;
use crate::repository::Repository;
use crate::repository::crypto::MasterKey;

/// How often the parent is told how far the work is.
const TELL: Duration = Duration::from_millis(250);
/// Orders are a line; a longer one is not from our parent.
const LONGEST_LINE: u64 = 64 << 20;

/// Carry one ordinal's volumes: a worker that backup and restore start
#[derive(Clone, Debug, clap::Args)]
pub struct Mover {}

struct Orders {
    job: MoverJob,
    key: MasterKey,
}

/// Whether this mover is a pod.
pub fn is_pod() -> bool {
    std::env::var_os(JOB).is_some()
}

/// Does what the variable says. The repository is opened with the password that the pod has been given, and only a signal stops it.
pub async fn run_in_pod(wire: &Wire, stop_asked: Stop) -> anyhow::Result<ExitCode> {
    let stop = when_asked(stop_asked);
    let worked = async {
        let job = std::env::var(JOB).ok().and_then(|job| serde_json::from_str::<MoverJob>(&job).ok());
        let job = job.ok_or_else(|| bad_orders(&format!("{JOB} is no job")))?;
        let store = wire::open_store(&job.repository)?;
        let repository = Repository::open(store, &wire.password()?).await?;
        work(job, repository, wire.output, stop).await
    };
    tell(worked.await, wire.output)
}

fn when_asked(mut asked: Stop) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let raise = Arc::clone(&stop);
    tokio::spawn(async move {
        if asked.wait_for(|stop| *stop).await.is_ok() {
            raise.store(true, Ordering::SeqCst);
        }
    });
    stop
}

/// Does what the orders say. Every failure is told on standard output as the parent expects it, and as the exit code.
pub async fn run(output: Output, stop_asked: Stop) -> anyhow::Result<ExitCode> {
    let stop = when_asked(stop_asked);
    let worked = async {
        let Orders { job, key } = orders(Arc::clone(&stop)).await?;
        let repository = Repository::with_key(wire::open_store(&job.repository)?, key).await?;
        work(job, repository, output, stop).await
    };
    tell(worked.await, output)
}

/// The last line, as the parent expects it, and the exit code.
fn tell(worked: anyhow::Result<MoverReport>, output: Output) -> anyhow::Result<ExitCode> {
    let error = match worked {
        Ok(report) => {
            output.json_line(&MoverLine::Report(report))?;
            return Ok(ExitCode::Done);
        }
        Err(error) => error,
    };
    let known = error.downcast_ref::<MoverError>();
    let kind = known.map_or(FailureKind::Failed, MoverError::kind);
    let hint = crate::cli::exit::judge(&error).hint;
    output.json_line(&MoverLine::Failed { error: chain_text(&error), hint, kind })?;
    Ok(of_failure(kind))
}

/// Reads the two lines, then goes on listening: the end of the input is the parent's death, or its wish that this one stops.
async fn orders(stop: Arc<AtomicBool>) -> Result<Orders, CliError> {
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        let mut input = BufReader::new(std::io::stdin());
        // The receiver waits for exactly this; where it is gone, so is the work.
        let _ = send.send(read_orders(&mut input));
        let mut rest = [0; 256];
        while matches!(input.read(&mut rest), Ok(1..)) {}
        stop.store(true, Ordering::SeqCst);
    });
    receive.await.unwrap_or_else(|_| Err(bad_orders("nobody gave them")))
}

fn read_orders(input: &mut impl BufRead) -> Result<Orders, CliError> {
    let mut line = || -> Result<Zeroizing<Vec<u8>>, CliError> {
        let mut line = Zeroizing::new(Vec::new());
        input.take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|error| bad_orders(&error.to_string()))?;
        if line.pop() == Some(b'\n') { Ok(line) } else { Err(bad_orders("the input ended early")) }
    };
    let job = serde_json::from_slice(&line()?).map_err(|error| bad_orders(&error.to_string()))?;
    let key = Zeroizing::new(BASE64.decode(&line()?).map_err(|_| bad_orders("the key is not base64"))?);
    let key: &[u8; 64] = key.as_slice().try_into().map_err(|_| bad_orders("the key has another length"))?;
    Ok(Orders { job, key: MasterKey::from_bytes(key) })
}

fn bad_orders(reason: &str) -> CliError {
    CliError::failed(format!("a mover got no orders: {reason}"), "`keepset mover` is started by backup and restore, not by people")
}

async fn work(job: MoverJob, repository: Repository, output: Output, stop: Arc<AtomicBool>) -> anyhow::Result<MoverReport> {
    let counters = Arc::new(Counters::default());
    let work = crate::mover::run(job, repository, Clock::system(), Arc::clone(&counters), stop);
    let mut tell = interval(TELL);
    tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(work);
    loop {
        tokio::select! {
            report = &mut work => return Ok(report?),
            _ = tell.tick() => output.json_line(&MoverLine::Progress(counters.progress()))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_two_lines_and_anything_else_is_refused() {
        let key = BASE64.encode(&[7; 64]);
        let job = r#"{"run":"r","set":"a/b","ordinal":1,"repository":"/r","memory":1,"task":{"save":[]}}"#;
        let read = |text: String| read_orders(&mut text.as_bytes());
        let orders = read(format!("{job}\n{key}\n")).ok().unwrap();
        assert_eq!((orders.job.run.as_str(), orders.key.to_bytes()[0]), ("r", 7));
        for bad in [
            String::new(),
            job.to_owned(),
            format!("{job}\n{key}"),
            format!("{job}\nshort\n"),
            format!("{{}}\n{key}\n"),
            format!("{job}\n!\n"),
        ] {
            let error = read(bad).err().unwrap().to_string();
            assert!(error.starts_with("a mover got no orders") && !error.contains(&key), "{error}");
        }
    }
}
