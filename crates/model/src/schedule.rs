//! Timetables in the syntax of crontab(5): when something is due next.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::ids::Micros;

/// Longest expression, octets.
const MAX_CRON: usize = 128;
/// Short names of common expressions, as Kubernetes knows them.
const NAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// When something is due: minutes, hours, days, months and weekdays in a time zone.
pub struct Timetable {
    crontab: cronexpr::Crontab,
    text: String,
}

/// Why a timetable is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimetableError {
    /// Not five fields, or a field that says nothing.
    #[error("`{0}` is no schedule")]
    Cron(String),
    /// A time zone that is not in the IANA database.
    #[error("`{0}` is no time zone")]
    TimeZone(String),
}

impl TimetableError {
    /// Name of the field that is wrong: `cron` or `timeZone`.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Cron(_) => "cron",
            Self::TimeZone(_) => "timeZone",
        }
    }

    /// What to do.
    pub const fn mend(&self) -> &'static str {
        match self {
            Self::Cron(_) => "use five fields such as */30 * * * *, or @hourly, @daily, @weekly, @monthly, @yearly",
            Self::TimeZone(_) => "use a name of the IANA database such as Europe/Berlin",
        }
    }
}

impl Timetable {
    /// A timetable from five fields (or a short name such as `@hourly`) in a time zone, UTC where there is none.
    ///
    /// # Errors
    /// The expression or the time zone is unusable.
    pub fn new(cron: &str, time_zone: Option<&str>) -> Result<Self, TimetableError> {
        let zone = time_zone.unwrap_or("UTC");
        // A zone is one word here, so that nothing in it is taken for a field.
        if zone.contains(char::is_whitespace) || TimeZone::get(zone).is_err() {
            return Err(TimetableError::TimeZone(zone.to_owned()));
        }
        let refused = || TimetableError::Cron(cron.to_owned());
        if cron.len() > MAX_CRON {
            return Err(refused());
        }
        let fields = NAMES.iter().find(|(name, _)| *name == cron).map_or(cron, |(_, fields)| fields);
        if fields.split_whitespace().count() != 5 || !fields.split_whitespace().enumerate().all(plain) {
            return Err(refused());
        }
        let text = format!("{fields} {zone}");
        let crontab = cronexpr::parse_crontab(&text).map_err(|_| refused())?;
        Ok(Self { crontab, text })
    }

    /// The first moment after `now` at which it is due; `None`: never again.
    pub fn next_after(&self, now: Micros) -> Option<Micros> {
        let now = Timestamp::from_microsecond(i64::try_from(now.0).ok()?).ok()?;
        let next = self.crontab.find_next(now).ok()?;
        u64::try_from(next.timestamp().as_microsecond()).ok().map(Micros)
    }
}

/// Whether a field is written in what every cron understands: no `L`, `W`, `#` or `H`, and Sunday is 0 and not 7.
fn plain((place, field): (usize, &str)) -> bool {
    let mut words = field.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = |word: &str| word.bytes().all(|octet| octet.is_ascii_alphabetic());
    let known = words.all(|word| word.bytes().all(|octet| octet.is_ascii_digit()) || (name(word) && word.len() == 3));
    let ranges = field.split(',').filter_map(|part| part.split('/').next());
    let sunday = ranges.flat_map(|range| range.split('-')).any(|day| day == "7");
    known && !field.contains('#') && !(place == 4 && sunday)
}

impl fmt::Debug for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        Micros(text.parse::<Timestamp>().unwrap().as_microsecond().cast_unsigned())
    }

    fn next(cron: &str, zone: Option<&str>, now: &str) -> String {
        let next = Timetable::new(cron, zone).unwrap().next_after(at(now)).unwrap();
        Timestamp::from_microsecond(next.0.cast_signed()).unwrap().to_string()
    }

    #[test]
    fn the_next_moment_is_after_now() {
        assert_eq!(next("*/30 * * * *", None, "2026-11-24T10:00:00Z"), "2026-11-24T10:30:00Z");
        assert_eq!(next("*/30 * * * *", None, "2026-11-24T10:29:59Z"), "2026-11-24T10:30:00Z");
        assert_eq!(next("@hourly", None, "2026-11-24T10:00:01Z"), "2026-11-24T11:00:00Z");
        assert_eq!(next("0 3 * JAN-NOV MON-FRI", None, "2026-11-27T12:00:00Z"), "2026-11-30T03:00:00Z");
        assert_eq!(next("0 3 */7 * *", None, "2026-11-24T12:00:00Z"), "2026-11-29T03:00:00Z");
        assert_eq!(next("0 3 * * 1-5", None, "2026-11-27T12:00:00Z"), "2026-11-30T03:00:00Z");
    }

    #[test]
    fn a_time_zone_moves_with_the_summer() {
        let zone = Some("Europe/Berlin");
        assert_eq!(next("0 6 * * *", zone, "2026-01-10T12:00:00Z"), "2026-01-11T05:00:00Z");
        assert_eq!(next("0 6 * * *", zone, "2026-07-10T12:00:00Z"), "2026-07-11T04:00:00Z");
        // On 29 March there is no such moment.
        assert_eq!(next("30 2 * * *", zone, "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
    }

    #[test]
    fn what_is_no_timetable_is_refused() {
        for cron in [
            "",
            "* * * *",
            "* * * * * *",
            "61 * * * *",
            "@often",
            "a b c d e",
            &"*".repeat(200),
            "0 0 L * *",
            "0 0 * * 7",
            "0 0 * * FRI#1",
            "H * * * *",
            "0 0 15W * *",
        ] {
            assert!(matches!(Timetable::new(cron, None), Err(TimetableError::Cron(_))), "{cron}");
        }
        for zone in ["", "Mars/Base", "UTC UTC"] {
            assert!(matches!(Timetable::new("* * * * *", Some(zone)), Err(TimetableError::TimeZone(_))), "{zone}");
        }
    }
}
