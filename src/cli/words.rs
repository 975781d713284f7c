//! Numbers, times and ages as people read them.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};

/// `0 B`, `1023 B`, `1.5 KiB`, `640 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 999.95 would be written 1000.0: a digit more than the next unit needs.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// `1 file`, `3 files`, `12,345 files`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", number_text(number), if number == 1 { one } else { many })
}

fn number_text(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.4 s`, `12 s`, `3 m 20 s`, `2 h 5 m`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long ago: `just now`, `5 minutes`, `3 hours`, `2 days`; `in the future` where the clocks disagree.
pub fn age(now: DateTime<Utc>, then: DateTime<FixedOffset>) -> String {
    let age = now.signed_duration_since(then);
    if age < TimeDelta::seconds(-60) {
        return "in the future".to_owned();
    }
    let minutes = u64::try_from(age.num_minutes()).unwrap_or(0);
    match minutes {
        0 => "just now".to_owned(),
        1..120 => count(minutes, "minute", "minutes"),
        120..2880 => count(minutes / 60, "hour", "hours"),
        _ => count(minutes / 1440, "day", "days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_take_more_than_four_digits() {
        for (number, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (640 << 20, "640 MiB"), ((1 << 30) - 1, "1.0 GiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn counts_are_grouped_and_have_a_singular() {
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(1234567, "file", "files"), "1,234,567 files");
        assert_eq!(count(123, "file", "files"), "123 files");
    }

    #[test]
    fn ages_and_spans_are_rounded_down() {
        let now = DateTime::parse_from_rfc3339("2026-11-24T08:00:00Z").unwrap();
        for (then, text) in [
            ("2026-11-24T07:59:30Z", "just now"),
            ("2026-11-24T07:58:30Z", "1 minute"),
            ("2026-11-24T01:30:00Z", "6 hours"),
            ("2026-11-20T08:00:00Z", "4 days"),
            ("2026-11-24T09:00:00Z", "in the future"),
        ] {
            assert_eq!(age(now.to_utc(), DateTime::parse_from_rfc3339(then).unwrap()), text);
        }
        assert_eq!(duration(Duration::from_millis(420)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 m 20 s");
        assert_eq!(duration(Duration::from_secs(7500)), "2 h 5 m");
    }
}
