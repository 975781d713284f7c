//! Commands in a set's own pods, by way of the API server and the kubelet.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use kube::client::UpgradeConnectionError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::model::set::SetName;
use crate::platform::kubernetes::{Kubernetes, api};
use crate::platform::{Ended, InPod, PlatformError, PodPlace};

/// Longer lines are told in pieces.
const LINE_BYTES: usize = 4096;

/// The command's input stays open as long as whoever asked for it lives and keeps it so: the kubelet ends it when the connection breaks.
pub(super) async fn begin(cluster: &Kubernetes, set: &SetName, place: &PodPlace, command: &[String]) -> Result<InPod, PlatformError> {
    let params = AttachParams::default().stdin(true).stdout(true).stderr(true).container(&place.container);
    let pods: Api<Pod> = Api::namespaced(cluster.streams.clone(), &set.namespace);
    let attached = pods.exec(&place.pod, command, &params).await;
    let attached = attached.map_err(|error| failed(place, error))?;
    let (words, said) = mpsc::channel(4);
    let (send, lines) = mpsc::channel(16);
    Ok(InPod::new(words, lines, tokio::spawn(attend(attached, said, send))))
}

fn failed(place: &PodPlace, error: kube::Error) -> PlatformError {
    let what = format!("pod {} (container {})", place.pod, place.container);
    match error {
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => PlatformError::Cluster {
            verb: "run a command in",
            what,
            code: status.as_u16(),
            reason: format!("the API server says {status}"),
        },
        error => api::failed("run a command in", what, error),
    }
}

async fn attend(mut attached: AttachedProcess, mut words: mpsc::Receiver<String>, lines: mpsc::Sender<String>) -> Ended {
    let (stdin, stdout, stderr, status) = (attached.stdin(), attached.stdout(), attached.stderr(), attached.take_status());
    let tell = async {
        let Some(mut stdin) = stdin else { return };
        while let Some(word) = words.recv().await {
            // Whoever does not listen any more has ended, which is told elsewhere.
            if stdin.write_all(word.as_bytes()).await.is_err() || stdin.flush().await.is_err() {
                break;
            }
        }
        let _ = stdin.shutdown().await;
    };
    let hear = async { tokio::join!(pass_on(stdout, &lines), pass_on(stderr, &lines)) };
    tokio::pin!(tell, hear);
    tokio::select! {
        _ = &mut hear => {}
        () = &mut tell => drop(hear.await),
    }
    match status {
        Some(status) => ended(status.await),
        None => ended(None),
    }
}

async fn pass_on(stream: Option<impl AsyncRead + Unpin>, lines: &mpsc::Sender<String>) {
    let Some(mut stream) = stream else { return };
    let (mut chunk, mut line) = ([0; 1024], Vec::new());
    loop {
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        for byte in &chunk[..read] {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() >= LINE_BYTES {
                // Nobody may be listening any more; it is read all the same, so that the command is not held up.
                let _ = lines.send(String::from_utf8_lossy(&line).into_owned()).await;
                line.clear();
            }
        }
        if read == 0 {
            break;
        }
    }
    if !line.is_empty() {
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned()).await;
    }
}

/// Pure: the kubelet's last word.
fn ended(status: Option<Status>) -> Ended {
    let Some(status) = status else { return Ended::Lost("the connection to it broke".into()) };
    if status.status.as_deref() == Some("Success") {
        return Ended::Code(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let code = causes.into_iter().flatten().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    if let Some(code) = code.and_then(|cause| cause.message.as_ref()?.parse().ok()) {
        return Ended::Code(code);
    }
    let message = status.message.unwrap_or_default();
    // In the words of runc and crun, which come by way of every container runtime.
    let not_started =
        ["executable file not found", "unable to start container process", "failed to start exec", "no such file or directory"];
    if not_started.iter().any(|words| message.contains(words)) { Ended::NotStarted(message) } else { Ended::Lost(message) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kubelets_last_word_is_understood() {
        let said = |status| ended(Some(api::object(status)));
        assert_eq!(said(json!({ "status": "Success" })), Ended::Code(0));
        let failed = json!({
            "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code 3",
            "details": { "causes": [{ "reason": "ExitCode", "message": "3" }] },
        });
        assert_eq!(said(failed), Ended::Code(3));
        let no_program = "failed to exec in container: OCI runtime exec failed: exec: \"sh\": executable file not found in $PATH";
        assert_eq!(said(json!({ "status": "Failure", "message": no_program })), Ended::NotStarted(no_program.into()));
        assert_eq!(said(json!({ "status": "Failure", "message": "it went" })), Ended::Lost("it went".into()));
        assert!(matches!(ended(None), Ended::Lost(_)));
    }
}
