//! When a set is due: cron expressions in a time zone, jitter, missed times. Pure: the time of day is handed in.

mod due;
mod expression;
mod zoned;

pub use due::{Due, SANE, Schedule};
pub use expression::{BadExpression, Expression};
