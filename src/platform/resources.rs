//! What a container of ours asks for and may take.

use std::collections::BTreeMap;

/// Quantities of Kubernetes by name, such as `cpu` and `memory`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub requests: BTreeMap<String, String>,
    pub limits: BTreeMap<String, String>,
}
