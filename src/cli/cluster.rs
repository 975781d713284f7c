//! Where the sets of a command line are: in folders where a place is named, else in the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::error::CliError;
use crate::cli::wire::Wire;
use crate::platform::Platform;
use crate::platform::folders::{Folders, FoldersOptions};
use crate::platform::kubernetes::{Kubernetes, KubernetesOptions, MoverOptions};

/// The Secret that movers take their environment from where nobody names another.
const SECRET: &str = "keepset";
const PATIENCE: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(600);

/// What can be said of a cluster; the settings can say all of it and more.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "In a cluster")]
pub struct ClusterArgs {
    /// The image that movers run: one of this very version
    #[arg(long, env = "KEEPSET_IMAGE", value_name = "IMAGE", hide_env_values = true)]
    image: Option<String>,

    /// A Secret of the set's namespace with the repository's password and the store's keys, as environment; `keepset` where left out
    #[arg(long, env = "KEEPSET_SECRET", value_name = "NAME", hide_env_values = true)]
    secret: Option<String>,

    /// Movers run as root, to save and give back what belongs to others than the set's own user
    #[arg(long)]
    mover_root: bool,

    /// How long an ordinal may take to be ready, and all of them to end; 10m where left out
    #[arg(long, value_name = "SPAN")]
    timeout: Option<crate::config::Span>,

    /// Do it in this process, which must reach the repository, instead of a job in the cluster
    #[arg(long, env = "KEEPSET_HERE", hide_env_values = true)]
    here: bool,
}

impl ClusterArgs {
    /// The flags that another call needs to mean the same; what the environment said it finds there itself.
    pub fn passed_on(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let values =
            [("--image", self.image.clone()), ("--secret", self.secret.clone()), ("--timeout", self.timeout.map(|span| span.to_string()))];
        for (flag, value) in values {
            flags.extend(value.into_iter().map(|value| format!("{flag}={value}")));
        }
        flags.extend(
            [("--mover-root", self.mover_root), ("--here", self.here)].into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag.to_owned()),
        );
        flags
    }
}

/// Whether a Job in the cluster does it: the set is in a cluster, and this process is not.
pub fn is_submitted(args: &ClusterArgs, wire: &Wire, place: Option<&PathBuf>) -> bool {
    place.is_none() && wire.settings.cluster.is_some() && !args.here && !Wire::is_in_cluster()
}

/// The folders where a place is given, else the cluster that this pod is in or that the kubeconfig names.
pub async fn platform(
    args: &ClusterArgs,
    wire: &Wire,
    place: Option<PathBuf>,
    fold: impl FnOnce(FoldersOptions) -> FoldersOptions,
) -> anyhow::Result<Arc<dyn Platform>> {
    Ok(match place {
        Some(root) => Arc::new(Folders::new(fold(wire.folders(root)?))),
        None => Arc::new(kubernetes(args, wire).await?),
    })
}

/// The image that movers run.
pub fn image(args: &ClusterArgs, wire: &Wire) -> Result<String, CliError> {
    let of_settings = || wire.settings.kubernetes.as_ref().and_then(|settings| settings.image.clone());
    args.image.clone().or_else(of_settings).ok_or_else(|| {
        CliError::usage("no image is given for movers", "give --image IMAGE, set KEEPSET_IMAGE, or kubernetes.image in the settings")
    })
}

/// The Secret that movers take their environment from.
pub fn secret(args: &ClusterArgs, wire: &Wire) -> String {
    let of_settings = || wire.settings.kubernetes.as_ref().and_then(|settings| settings.secret.clone());
    args.secret.clone().or_else(of_settings).unwrap_or_else(|| SECRET.to_owned())
}

/// The cluster that this pod is in, or that the kubeconfig names.
pub async fn kubernetes(args: &ClusterArgs, wire: &Wire) -> anyhow::Result<Kubernetes> {
    connect(args, wire, image(args, wire)?).await
}

/// The same for those who start no movers, and need no image for them.
pub async fn kubernetes_to_look_at(args: &ClusterArgs, wire: &Wire) -> anyhow::Result<Kubernetes> {
    connect(args, wire, String::new()).await
}

async fn connect(args: &ClusterArgs, wire: &Wire, image: String) -> anyhow::Result<Kubernetes> {
    let settings = wire.settings.kubernetes.clone().unwrap_or_default();
    let cluster = wire.settings.cluster.clone().ok_or_else(|| {
        CliError::usage(
            "nothing says where the set is",
            "give the folder of its claims with --from or --into; or, for a set in Kubernetes, name the cluster: --cluster NAME, or `cluster` in the settings",
        )
    })?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let movers = MoverOptions {
        image,
        image_pull_policy: settings.image_pull_policy,
        image_pull_secrets: settings.image_pull_secrets,
        secret: secret(args, wire),
        service_account: settings.mover_service_account,
        resources: settings.mover_resources.resources(),
        labels: settings.mover_labels,
        annotations: settings.mover_annotations,
        priority_class: settings.priority_class_name,
        as_root: args.mover_root || settings.mover_root.unwrap_or(false),
        log_filter: None,
    };
    let span = |span: Option<crate::config::Span>, default| span.map_or(default, |span| span.0);
    let options = KubernetesOptions {
        cluster,
        holder: format!("{host}/{}", std::process::id()),
        clock: wire.clock.clone(),
        movers,
        clone_classes: settings.clone_classes,
        patience: span(settings.patience, PATIENCE),
        deadline: span(args.timeout.or(settings.deadline), DEADLINE),
    };
    Ok(Kubernetes::connect(options).await?)
}
