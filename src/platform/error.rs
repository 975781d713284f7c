//! What can go wrong where sets live.

use std::io;

use crate::model::mover_job::FailureKind;

/// A platform could not do what it was asked; the message names the thing and the place.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("cannot {verb} {path}")]
    Io {
        /// `read`, `create`, `remove`.
        verb: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no folder {path}")]
    NoFolder { path: String },
    #[error("{path} has the name of a claim but is {what}")]
    NotAClaim { path: String, what: &'static str },
    #[error("the folders of {place} can be read in two ways: `{short}-…` and `{long}-…` may be two templates of one set, or two sets")]
    Ambiguous { place: String, short: String, long: String },
    #[error("ordinal {ordinal} of set {set} is too far from ordinal {first}: {claims} claims would be missing between them")]
    Scattered { set: String, first: u32, ordinal: u32, claims: u64 },
    #[error("ordinals {start} to {start} + {replicas} of set {set} are out of range")]
    BadRange { set: String, start: u32, replicas: u32 },
    #[error("{path} is not the folder any more that was chosen: it was moved or replaced meanwhile")]
    Exchanged { path: String },
    #[error("{path} has the name of one of keepset's own files but is no regular file")]
    NotOurFile { path: String },
    #[error("the path {path} is not UTF-8")]
    NotUtf8 { path: String },
    #[error("the repository {repository} and {path} lie inside of one another")]
    HoldsRepository { repository: String, path: String },
    #[error("{path} is not empty")]
    HoldsData { path: String },
    #[error("claim {claim} in {place} is not being restored by run {run}")]
    NotOurs { claim: String, place: String, run: String },
    #[error("a restore is open already: {path}")]
    JournalThere { path: String },
    #[error("the restore of {path} is at work in another process")]
    JournalHeld { path: String },
    #[error("a mover is still at work in {path}")]
    ClaimHeld { path: String },
    #[error("set {set} is in use by {holder}")]
    SetHeld { set: String, holder: String },
    #[error("another agent works: {holder}")]
    Led { holder: String },
    #[error("another took the right to work on set {set} over, since it could not be renewed")]
    SetLost { set: String },
    #[error("cannot {verb} {what}: {reason}")]
    Cluster {
        verb: &'static str,
        what: String,
        /// The API server's, 0 where it did not answer.
        code: u16,
        reason: String,
    },
    #[error("no cluster is known: {reason}")]
    NoCluster { reason: String },
    #[error("there is no StatefulSet {set}")]
    NoSet { set: String },
    #[error("{what} was not held still within {seconds} s: {reason}")]
    NotCut { what: String, seconds: u64, reason: String },
    #[error("set {set} does not run in pods")]
    NoPods { set: String },
    #[error("claim {claim} can be mounted by one pod only, and {pod} has it")]
    OnePod { claim: String, pod: String },
    #[error("the mover of ordinal {ordinal} did not begin (pod {pod}): {reason}")]
    MoverNotBegun { ordinal: u32, pod: String, reason: String },
    #[error("the probe of ordinal {ordinal} did not begin (pod {pod}): {reason}")]
    ProbeNotBegun { ordinal: u32, pod: String, reason: String },
    #[error("the application is not started in namespace {namespace}: {reason}")]
    NotFenced { namespace: String, reason: String },
    #[error("set {set} cannot be started on trial: {reason}")]
    NoCopy { set: String, reason: String },
    #[error("the claims of set {set} are still in use by {pods}, {seconds} s after it was stopped")]
    InUse { set: String, pods: String, seconds: u64 },
    #[error("the claims of set {set} would be deleted with its ordinals, and its controller has not let go of them within {seconds} s")]
    ClaimsOwned { set: String, seconds: u64 },
    #[error("set {set} was scaled back to {replicas} while it is to be stopped{}", if owners.is_empty() { String::new() } else { format!(", perhaps by {owners}") })]
    ScaledBack { set: String, replicas: u32, owners: String },
    #[error("set {set} is scaled by the horizontal pod autoscaler {scaler}")]
    Autoscaled { set: String, scaler: String },
    #[error("{claim} is not the one any more that run {run} filled")]
    ClaimChanged { claim: String, run: String },
    #[error("the mover of ordinal {ordinal} has said nothing for {seconds} s (pod {pod}): is its node alive?")]
    MoverSilent { ordinal: u32, pod: String, seconds: u64 },
    #[error("cannot start the mover of ordinal {ordinal} by {program}")]
    MoverStart {
        ordinal: u32,
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("the mover of ordinal {ordinal} ended without a report ({status}){said}")]
    MoverLost { ordinal: u32, status: String, said: String },
    #[error("the mover of ordinal {ordinal} wrote a line that nobody understands: {line}")]
    MoverLine { ordinal: u32, line: String },
    #[error("no start command is set for set {set}")]
    NoStart { set: String },
    #[error("cannot run `{command}`")]
    Spawn {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("the start command of ordinal {ordinal} failed: `{command}` ended with {status}{said}")]
    StartFailed { ordinal: u32, command: String, status: String, said: String },
    #[error("ordinal {ordinal} was not {what} within {seconds} s{said}")]
    Deadline { ordinal: u32, what: &'static str, seconds: u64, said: String },
}

impl PlatformError {
    pub(super) fn io(verb: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        PlatformError::Io { verb, path: path.display().to_string(), source }
    }

    /// As [`PlatformError::io`], for one of keepset's own files: names what stands in its place.
    pub(super) fn of_file(verb: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::InvalidInput => PlatformError::NotOurFile { path: path.display().to_string() },
            _ => PlatformError::io(verb, path, source),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            PlatformError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as a user who may read and write there".into()
            }
            PlatformError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some room, or choose another place".into()
            }
            PlatformError::NoFolder { .. } => "give the folder that holds one folder per claim, `<template>-<set>-<ordinal>`".into(),
            PlatformError::NotAClaim { .. } => {
                "links are never followed: put the folder itself there (a bind mount does), or give the entry another name".into()
            }
            PlatformError::Ambiguous { short, long, .. } => {
                format!("name the set's templates: `--template {short} --template {long}` if both are its own, `--template {short}` if not")
            }
            PlatformError::Scattered { .. } => "give the range with `--start-ordinal` and `--replicas`".into(),
            PlatformError::BadRange { .. } => {
                "`--start-ordinal` and `--replicas` together must stay below 4294967296, and be no more than 100000".into()
            }
            PlatformError::Exchanged { .. } => "find out who moves folders there, and run it again".into(),
            PlatformError::NotOurFile { .. } => "remove it, and find out who may write to that folder".into(),
            PlatformError::NotUtf8 { .. } => "give the folder another name, or reach it by a bind mount that has one".into(),
            PlatformError::HoldsRepository { .. } => {
                "keep the repository outside of what is backed up and restored: a restore would remove it, and a backup would contain itself".into()
            }
            PlatformError::HoldsData { .. } => "choose an empty place with `--into`".into(),
            PlatformError::JournalThere { .. } => "`keepset restore … --resume` goes on with it, `--undo` takes it back".into(),
            PlatformError::SetHeld { .. } | PlatformError::JournalHeld { .. } | PlatformError::ClaimHeld { .. } => {
                "wait for it, or end it, and try again".into()
            }
            PlatformError::Cluster { code: 403, .. } => {
                "the Role in `deploy/rbac.yaml` is all that keepset needs in the set's namespace".into()
            }
            PlatformError::NoCluster { .. } => "set KUBECONFIG, or run in a pod; for a set of folders give --from or --into".into(),
            PlatformError::Cluster { code: 0, .. } => {
                "does the kubeconfig name the right cluster, and does it answer `kubectl version`?".into()
            }
            PlatformError::NoSet { .. } => {
                "`kubectl get statefulsets --all-namespaces` lists those that there are; claims without their set are replaced with `--no-safety` only".into()
            }
            PlatformError::NotCut { .. } => {
                "`kubectl describe volumesnapshots` may tell more; `--live` reads the volumes as they are".into()
            }
            PlatformError::OnePod { .. } => {
                "snapshot it (a VolumeSnapshotClass for its driver is needed), or scale the set to 0 and say `--stopped`".into()
            }
            PlatformError::MoverNotBegun { reason, .. } if reason.contains("secret") => {
                "movers take the repository's password and the store's keys from a Secret of the set's namespace".into()
            }
            PlatformError::ProbeNotBegun { .. } => "does its image exist, may the nodes pull it, and is its program in it?".into(),
            PlatformError::NotFenced { .. } => {
                "it would reach what the original reaches; without `--start-app` (`drill.startApp`) a drill proves the data, and probes it, all the same".into()
            }
            PlatformError::NoCopy { .. } => "without `--start-app` (`drill.startApp`) a drill proves the data, and probes it, all the same".into(),
            PlatformError::InUse { .. } => "end them, and try again; a restore that is open goes on with `--resume`".into(),
            PlatformError::ScaledBack { .. } => {
                "suspend what scales it, and try again; a restore that is open goes on with `--resume`, or back with `--undo`".into()
            }
            PlatformError::ClaimChanged { .. } => "`--undo` takes the restore back; then begin it anew".into(),
            PlatformError::ClaimsOwned { .. } => "is the kube-controller-manager alive? set `whenScaled: Retain` by hand and try again".into(),
            PlatformError::SetLost { .. } => "the other run goes on; `keepset status` and its own output tell how".into(),
            PlatformError::MoverSilent { .. } => "once the node is back or gone, try again; an open restore goes on with `--resume`".into(),
            PlatformError::Autoscaled { scaler, .. } => format!("remove it until the set is restored: `kubectl delete hpa {scaler}`"),
            PlatformError::Spawn { .. } => "give a program that is there and may be run; no shell looks for it, nor at its arguments".into(),
            PlatformError::NoStart { .. } => "set a start command for the set in the settings, or say `--start none`".into(),
            PlatformError::StartFailed { .. } | PlatformError::Deadline { .. } => {
                "the data is restored and proven; start the rest by hand once the cause is found".into()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// Another has the right to the set by now.
    pub fn is_lost(&self) -> bool {
        matches!(self, PlatformError::SetLost { .. } | PlatformError::JournalHeld { .. })
    }

    /// What the exit code depends on.
    pub fn kind(&self) -> FailureKind {
        match self {
            PlatformError::NotAClaim { .. }
            | PlatformError::Ambiguous { .. }
            | PlatformError::Scattered { .. }
            | PlatformError::HoldsData { .. }
            | PlatformError::Exchanged { .. }
            | PlatformError::NotOurFile { .. }
            | PlatformError::NotUtf8 { .. }
            | PlatformError::HoldsRepository { .. }
            | PlatformError::NotOurs { .. }
            | PlatformError::OnePod { .. }
            | PlatformError::NotFenced { .. }
            | PlatformError::NoCopy { .. }
            | PlatformError::Autoscaled { .. }
            | PlatformError::JournalThere { .. } => FailureKind::Refused,
            PlatformError::SetHeld { .. }
            | PlatformError::JournalHeld { .. }
            | PlatformError::ClaimHeld { .. }
            | PlatformError::Led { .. } => FailureKind::Locked,
            _ => FailureKind::Failed,
        }
    }
}
