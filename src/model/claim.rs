//! A claim's identity: which template of which ordinal it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::set::{Ordinal, SetName};

/// Identity is built from template, set and ordinal and never parsed back out of a name alone: `data-web-1-0` is template `data` of
/// set `web-1`, or template `data-web` of set `1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimId {
    /// First, so that the derived order is by ordinal as a number, then by template.
    pub ordinal: Ordinal,
    pub template: String,
}

/// What a claim is made of beside its bytes: what is recorded when it is saved, and what it is made like when it is restored. All of it is
/// unknown outside Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Bytes: the most of what its template asks for, what it asks for itself, and what its volume has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// The name of the volume that it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The run of the last restore that filled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_by: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where its pod ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// As whom its pod runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_group: Option<i64>,
    /// Further groups of its pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<i64>,
}

impl ClaimShape {
    /// It has no file system: its volume is kept as an image.
    pub fn is_block(&self) -> bool {
        self.volume_mode.as_deref() == Some("Block")
    }
}

/// A claim as a place that a restore fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPlace {
    /// The set as it will be called.
    pub set: SetName,
    pub id: ClaimId,
    /// The claim's name there.
    pub name: String,
    pub shape: ClaimShape,
}

impl ClaimId {
    /// `<template>-<set>-<ordinal>`, the fixed scheme of the StatefulSet controller.
    pub fn name(&self, set: &str) -> String {
        format!("{}-{}-{}", self.template, set, self.ordinal)
    }

    /// The identity that `claim` has in the set called `set`, given that its template is not known: everything before `-<set>-<ordinal>`.
    /// `None` where the name cannot be this set's.
    pub fn of_name(claim: &str, set: &str) -> Option<ClaimId> {
        let (rest, digits) = claim.rsplit_once('-')?;
        let canonical = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let template = rest.strip_suffix(set)?.strip_suffix('-')?;
        if !canonical || template.is_empty() {
            return None;
        }
        Some(ClaimId { ordinal: Ordinal(digits.parse().ok()?), template: template.to_owned() })
    }
}

/// Whether `text` can be a claim's or a template's name as one folder's name: no separator, no control character, no leading dot, at
/// most 255 bytes. Kubernetes allows less; folders of other origin may have capitals and underscores.
pub fn is_claim_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.starts_with('.') && !text.chars().any(|c| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claims_name_and_identity_match_each_other() {
        let id = ClaimId { ordinal: Ordinal(10), template: "data".into() };
        assert_eq!(id.name("web"), "data-web-10");
        assert_eq!(ClaimId::of_name("data-web-10", "web"), Some(id));
        assert_eq!(ClaimId::of_name("data-web-1-0", "web-1").unwrap().template, "data");
        for foreign in ["data-web-01", "data-web-", "data-db-0", "web-0", "-web-0", "data-web-0x", "data-web-99999999999"] {
            assert_eq!(ClaimId::of_name(foreign, "web"), None, "{foreign}");
        }
    }

    #[test]
    fn a_name_that_leaves_its_folder_is_no_claims_name() {
        assert!(is_claim_name("data-web-0") && is_claim_name("My_data-web-0"));
        for bad in ["", ".", "..", ".hidden", "../data-web-0", "a/b", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(!is_claim_name(bad), "{bad}");
        }
    }

    #[test]
    fn claims_sort_by_ordinal_as_a_number_first() {
        let nine = ClaimId { ordinal: Ordinal(9), template: "wal".into() };
        let ten = ClaimId { ordinal: Ordinal(10), template: "data".into() };
        assert!(nine < ten);
    }
}
