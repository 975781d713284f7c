//! Which point a restore or a drill brings back.

use crate::cli::wire::Wire;
use crate::repository::select::Selector;

#[derive(Clone, Debug, clap::Args)]
pub struct PointArgs {
    /// Which point: latest (complete), the first digits of an id, or a time: the newest point that is no younger
    #[arg(long, value_name = "POINT", default_value = "latest")]
    pub point: Selector,

    /// Points of this cluster; the one that the set is in now where left out
    #[arg(long, value_name = "NAME")]
    from_cluster: Option<String>,

    /// A partial point will do
    #[arg(long)]
    pub allow_partial: bool,
}

impl PointArgs {
    /// The cluster whose points count; `None` where nobody named one.
    pub fn cluster(&self, wire: &Wire) -> Option<String> {
        self.from_cluster.clone().or_else(|| wire.settings.cluster.clone())
    }
}
