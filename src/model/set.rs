//! A set's name and its ordinals.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A pod's number in its set. Compared as a number everywhere: 9 comes before 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ordinal(pub u32);

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `namespace/name`, both DNS labels as Kubernetes has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SetName {
    pub namespace: String,
    pub name: String,
}

impl SetName {
    /// Refuses names that Kubernetes would refuse.
    pub fn new(namespace: &str, name: &str) -> Result<Self, BadSetName> {
        if is_dns_name(namespace) && is_dns_name(name) {
            Ok(SetName { namespace: namespace.to_owned(), name: name.to_owned() })
        } else {
            Err(BadSetName(format!("{namespace}/{name}")))
        }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The text is not `namespace/name`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a set's name: it should read namespace/name, each of lower-case letters, digits, `-` and `.`")]
pub struct BadSetName(String);

impl FromStr for SetName {
    type Err = BadSetName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) => SetName::new(namespace, name),
            None => Err(BadSetName(text.to_owned())),
        }
    }
}

/// A set that a search of the cluster came upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSet {
    pub set: SetName,
    pub annotations: BTreeMap<String, String>,
    pub replicas: u32,
}

impl TryFrom<String> for SetName {
    type Error = BadSetName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SetName> for String {
    fn from(name: SetName) -> String {
        name.to_string()
    }
}

/// An RFC 1123 subdomain: what Kubernetes takes as an object's name.
pub fn is_dns_name(text: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(|c| edge(*c))
                && bytes.last().is_some_and(|c| edge(*c))
                && bytes.iter().all(|c| edge(*c) || *c == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_compare_as_numbers() {
        assert!(Ordinal(9) < Ordinal(10));
    }

    #[test]
    fn a_set_name_reads_namespace_slash_name_and_nothing_else() {
        assert_eq!("prod/web".parse::<SetName>().unwrap().to_string(), "prod/web");
        for bad in ["web", "a/b/c", "/web", "prod/", "Prod/web", "prod/we b", "prod/..", "../web"] {
            assert!(bad.parse::<SetName>().is_err(), "{bad}");
        }
    }
}
