//! What a cron expression says, as crontab(5) has it: five fields, or `@daily` and its like.
//!
//! The `cron` crate finds the times. It counts weekdays from 1 for Sunday and asks for both days to match where a day of the month and a
//! weekday are given; crontab(5) counts from 0, takes 7 for Sunday too, and asks for one of the two. So the weekdays are written anew
//! for it, and where both are given there are two schedules.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, TimeDelta};
use serde::{Deserialize, Serialize};

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression that names at least one time to come.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    text: String,
    /// One of these must match.
    either: Vec<cron::Schedule>,
    every_hour: bool,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// The text is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a cron expression: {reason}")]
pub struct BadExpression {
    text: String,
    reason: String,
}

impl Expression {
    /// Whether the hour is left open, so that an hour which a clock shows twice counts twice.
    pub(super) fn every_hour(&self) -> bool {
        self.every_hour
    }

    /// The times on a clock that is never set, after `after`, in order.
    pub(super) fn after(&self, after: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> + '_ {
        let mut all: Vec<_> = self.either.iter().map(|schedule| schedule.after_owned(after.and_utc()).peekable()).collect();
        std::iter::from_fn(move || {
            let next = all.iter_mut().filter_map(|times| times.peek().copied()).min()?;
            for times in &mut all {
                times.next_if_eq(&next);
            }
            Some(next.naive_utc())
        })
    }
}

impl FromStr for Expression {
    type Err = BadExpression;

    fn from_str(text: &str) -> Result<Self, BadExpression> {
        let bad = |reason: String| BadExpression { text: text.to_owned(), reason };
        let plain = text.trim().to_ascii_lowercase();
        let plain = match NAMED.iter().find(|(name, _)| *name == plain) {
            Some((_, fields)) => (*fields).to_owned(),
            None if plain.starts_with('@') => return Err(bad("known names are @hourly, @daily, @weekly, @monthly and @yearly".into())),
            None => plain,
        };
        let fields: Vec<&str> = plain.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(bad(format!("it has {} fields, not the five of minute, hour, day, month and weekday", fields.len())));
        };
        if let Some(odd) = plain.chars().find(|&c| !(c.is_ascii_alphanumeric() || " \t*,-/".contains(c))) {
            return Err(bad(format!("`{odd}` means nothing here")));
        }
        let weekdays = weekdays(weekday).map_err(bad)?;
        let both = !day.starts_with('*') && !weekday.starts_with('*');
        let days: &[(&str, &str)] = if both { &[(day, "*"), ("*", weekdays.as_str())] } else { &[(day, weekdays.as_str())] };
        let schedule = |(day, weekdays): &(&str, &str)| cron::Schedule::from_str(&format!("0 {minute} {hour} {day} {month} {weekdays}"));
        let parsed: Result<Vec<_>, _> = days.iter().map(schedule).collect();
        let either = parsed.map_err(|_| bad("a field is out of its range, or no number, range or list".into()))?;
        let expression = Expression { text: text.trim().to_owned(), either, every_hour: hour == "*" };
        // The 30th of February is well formed, and never comes. The calendar repeats after 28 years where no century is in between.
        let start = DateTime::UNIX_EPOCH.naive_utc() + TimeDelta::days(20 * 365);
        if expression.after(start).next().is_none() {
            return Err(bad("there is no such day".into()));
        }
        Ok(expression)
    }
}

impl TryFrom<String> for Expression {
    type Error = BadExpression;

    fn try_from(text: String) -> Result<Self, BadExpression> {
        text.parse()
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> String {
        expression.text
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The weekdays as the `cron` crate writes them.
fn weekdays(field: &str) -> Result<String, String> {
    let day = |text: &str| match WEEKDAYS.iter().position(|name| *name == text) {
        Some(day) => Ok(day),
        None => text.parse().ok().filter(|day| *day <= 7).ok_or_else(|| format!("`{text}` is no weekday from 0 to 7, or sun to sat")),
    };
    let mut found = [false; 7];
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            None => (item, 1),
            Some((range, step)) => {
                (range, step.parse().ok().filter(|step| *step > 0).ok_or_else(|| format!("`{step}` is no step of weekdays"))?)
            }
        };
        let (first, last) = match range.split_once('-') {
            None if range == "*" => (0, 6),
            // As crontab(5) has it, a step needs a range; with one alone it goes on to the end of the week.
            None => (day(range)?, if item.contains('/') { 6 } else { day(range)? }),
            Some((first, last)) => (day(first)?, day(last)?),
        };
        // Friday to Sunday is written fri-sun as well as 5-7.
        let last = if last < first { last + 7 } else { last };
        (first..=last).step_by(step).for_each(|day| found[day % 7] = true);
    }
    if found.iter().all(|found| *found) {
        return Ok("*".to_owned());
    }
    let days: Vec<String> = (0..7).filter(|day| found[*day]).map(|day| (day + 1).to_string()).collect();
    Ok(days.join(","))
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, NaiveDate};

    use super::*;

    fn times(text: &str, count: usize) -> Vec<String> {
        let start = NaiveDate::from_ymd_opt(2026, 11, 24).unwrap().and_hms_opt(0, 0, 0).unwrap();
        let expression: Expression = text.parse().unwrap();
        expression.after(start).take(count).map(|time| time.format("%a %d %H:%M").to_string()).collect()
    }

    #[test]
    fn weekdays_count_from_sunday_which_is_0_and_7() {
        for text in ["15 2 * * 0", "15 2 * * 7", "15 2 * * sun", "15 2 * * SUN", "15 2 * * 7-7"] {
            assert_eq!(times(text, 2), ["Sun 29 02:15", "Sun 06 02:15"], "{text}");
        }
        assert_eq!(times("0 0 * * 5-7", 4), ["Fri 27 00:00", "Sat 28 00:00", "Sun 29 00:00", "Fri 04 00:00"]);
        assert_eq!(times("0 0 * * fri-sun", 4), times("0 0 * * 5-7", 4));
        assert_eq!(times("0 0 * * */2", 4), times("0 0 * * 0,2,4,6", 4));
        assert_eq!(times("0 12 * * mon-fri", 7).len(), 7);
    }

    #[test]
    fn a_day_of_the_month_or_a_weekday_is_enough_where_both_are_given() {
        assert_eq!(times("0 0 1,15 * 1", 5), ["Mon 30 00:00", "Tue 01 00:00", "Mon 07 00:00", "Mon 14 00:00", "Tue 15 00:00"]);
        // A star that is stepped is a star still.
        assert_eq!(times("0 0 */10 * 1", 1), ["Mon 21 00:00"]);
    }

    #[test]
    fn a_day_that_both_name_is_one_time() {
        let start = NaiveDate::from_ymd_opt(2026, 11, 24).unwrap().and_hms_opt(0, 0, 0).unwrap();
        let expression: Expression = "0 0 1-31 * 0-6".parse().unwrap();
        let days: Vec<u32> = expression.after(start).take(3).map(|time| time.day()).collect();
        assert_eq!(days, [25, 26, 27]);
    }

    #[test]
    fn names_and_steps_are_understood() {
        assert_eq!(times("@hourly", 2), ["Tue 24 01:00", "Tue 24 02:00"]);
        assert_eq!(times("@Daily", 1), ["Wed 25 00:00"]);
        assert_eq!(times("*/20 3 * * *", 3), ["Tue 24 03:00", "Tue 24 03:20", "Tue 24 03:40"]);
        assert_eq!(times("5-59/20 3 * * *", 3), ["Tue 24 03:05", "Tue 24 03:25", "Tue 24 03:45"]);
        assert_eq!(times("0 0 29 feb *", 1), ["Tue 29 00:00"]);
    }

    #[test]
    fn what_is_no_expression_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "it has 0 fields"),
            ("* * * *", "it has 4 fields"),
            ("0 0 2 * * *", "it has 6 fields"),
            ("@reboot", "known names are"),
            ("60 2 * * *", "out of its range"),
            ("0 24 * * *", "out of its range"),
            ("0 2 * 13 *", "out of its range"),
            ("0 2 * * 8", "`8` is no weekday"),
            ("0 2 * * 1/0", "`0` is no step"),
            ("0 2 L * *", "out of its range"),
            ("0 2 ? * *", "`?` means nothing"),
            ("0 2 * * 5#3", "`#` means nothing"),
            ("0 0 30 2 *", "there is no such day"),
        ] {
            let error = text.parse::<Expression>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9*,/a-z@ -]{0,30}") {
            let _ = text.parse::<Expression>();
        }
    }
}
