//! A recovery point as lists, plans and retention see it.

use chrono::{DateTime, FixedOffset};

use crate::model::id::Id;
use crate::model::manifest::{Consistency, PointKind};
use crate::model::set::SetName;

/// One sealed point, judged: whether it is whole was decided from its manifest and the trees that are there.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The snapshot object's id.
    pub id: Id,
    /// When the point's backup began.
    pub time: DateTime<FixedOffset>,
    pub cluster: String,
    pub set: SetName,
    pub kind: PointKind,
    /// Every expected claim was read in full and is there.
    pub complete: bool,
    /// The weakest of its claims.
    pub consistency: Consistency,
}
