//! Sizes, spans of time and percentages as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retention;

/// A number of bytes: `64MiB`, `1.5 GB`, `4096`. Binary units (`KiB MiB GiB TiB`, or `K M G T`) count in 1024, decimal ones (`kB MB GB TB`) in 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Size(pub u64);

/// A span of time: `90s`, `10m`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Span(pub Duration);

/// A span by the calendar, as retention counts: `7d`, `1y5m7d2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct CalendarSpan(pub retention::Span);

/// A share of a hundred, more than 0 and at most 100: `5%`, `2.5`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Percent(pub f64);

/// A quantity of Kubernetes, as it is written there: `500m`, `2`, `1.5Gi`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Quantity(pub String);

/// YAML writes `4096` and `64MiB` as different kinds of scalar; both are meant.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Fraction(f64),
    String(String),
}

impl Text {
    fn text(self) -> String {
        match self {
            Text::Number(number) => number.to_string(),
            Text::Fraction(number) => number.to_string(),
            Text::String(text) => text,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(format!("`{text}` is not a size such as 64MiB or 1GB")),
        };
        let bad = || format!("`{text}` is not a size such as 64MiB or 1GB");
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Size).ok_or_else(|| format!("`{text}` is more than this program can count"));
        }
        let number: f64 = number.parse().map_err(|_| bad())?;
        let bytes = number * factor as f64;
        if (0.0..9e18).contains(&bytes) { Ok(Size(bytes as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text.trim()).map(Span).map_err(|_| format!("`{text}` is not a span of time such as 90s, 10m or 1h 30m"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for CalendarSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse().map(CalendarSpan).map_err(|error: retention::BadSpan| error.to_string())
    }
}

impl fmt::Display for CalendarSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().trim_end_matches('%').trim_end();
        match number.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 100.0 => Ok(Percent(share)),
            _ => Err(format!("`{text}` is not a percentage: more than 0 and at most 100, such as 5%")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let units = ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        match number.parse::<f64>() {
            Ok(_) if units.contains(&unit) => Ok(Quantity(text.to_owned())),
            _ => Err(format!("`{text}` is not a quantity of Kubernetes such as 500m, 2 or 1.5Gi")),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! as_text {
    ($($unit:ty),*) => { $(
        impl TryFrom<Text> for $unit {
            type Error = String;
            fn try_from(text: Text) -> Result<Self, String> {
                text.text().parse()
            }
        }
        impl From<$unit> for String {
            fn from(unit: $unit) -> String {
                unit.to_string()
            }
        }
    )* };
}
as_text!(Size, Span, CalendarSpan, Percent, Quantity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_and_in_decimal_units() {
        for (text, bytes) in
            [("4096", 4096), ("64MiB", 64 << 20), ("64 M", 64 << 20), ("1.5GiB", 3 << 29), ("2GB", 2_000_000_000), ("7kb", 7000)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "MiB", "-1", "64 parsecs", "1e400", "99999999999999999999", "18446744073709551615K", "1.2.3M"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_percentage_is_more_than_nothing_and_at_most_all() {
        assert_eq!("2.5%".parse(), Ok(Percent(2.5)));
        assert_eq!("100".parse(), Ok(Percent(100.0)));
        for bad in ["0", "101%", "-3", "NaN", "half", "%"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_quantity_stays_as_it_is_written() {
        for text in ["500m", "2", "0.5", "128Mi", "1.5G"] {
            assert_eq!(text.parse(), Ok(Quantity(text.to_owned())), "{text}");
        }
        for bad in ["", "Mi", "-1", "64 MiB", "1Mib", "1.2.3", "1mi"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: u64, seconds in 0u64..1 << 40) {
            proptest::prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
            let span = Span(Duration::from_secs(seconds));
            proptest::prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,24}") {
            let _ = (text.parse::<Size>(), text.parse::<Span>(), text.parse::<Percent>(), text.parse::<Quantity>());
        }
    }
}
