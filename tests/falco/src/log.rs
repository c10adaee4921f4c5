//! Falco's log lines on stderr, and the times in them.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static TO_STDERR: AtomicBool = AtomicBool::new(true);
static ISO: AtomicBool = AtomicBool::new(false);

/// Takes over `log_stderr` and `time_format_iso_8601`.
pub fn configure(to_stderr: bool, iso: bool) {
    TO_STDERR.store(to_stderr, Ordering::Relaxed);
    ISO.store(iso, Ordering::Relaxed);
}

/// One log line.
pub fn line(message: &str) {
    if !TO_STDERR.load(Ordering::Relaxed) {
        return;
    }
    let now = Civil::now();
    let stamp = if ISO.load(Ordering::Relaxed) { format!("{}+0000", now.iso()) } else { now.asctime() };
    raw(&format!("{stamp}: {message}\n"));
}

/// Text on stderr without a time; a closed stderr is nobody's problem.
pub fn raw(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
}

/// Text on stdout; a closed stdout is nobody's problem.
pub fn stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// Nanoseconds since 1970.
pub fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos())
}

/// A moment in UTC, taken apart.
pub struct Civil {
    year: i64,
    month: u32,
    day: u32,
    weekday: usize,
    seconds: u64,
    nanos: u32,
}

impl Civil {
    /// This moment.
    pub fn now() -> Self {
        Self::from_nanoseconds(nanoseconds())
    }

    fn from_nanoseconds(nanoseconds: u128) -> Self {
        let total = (nanoseconds / 1_000_000_000) as u64;
        let days = (total / 86_400) as i64;
        // Days to a date by the calendar that starts in March, so that the leap day comes last.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
        let month = (if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 }) as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year,
            month,
            day,
            weekday: ((days + 4).rem_euclid(7)) as usize,
            seconds: total % 86_400,
            nanos: (nanoseconds % 1_000_000_000) as u32,
        }
    }

    fn clock(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60)
    }

    /// `2026-11-24T16:03:53`.
    pub fn iso(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}", self.year, self.month, self.day, self.clock())
    }

    /// `2026-11-24T16:03:53.470020478Z`.
    pub fn iso_nanos(&self) -> String {
        format!("{}.{:09}Z", self.iso(), self.nanos)
    }

    /// `16:03:53.470020478`.
    pub fn clock_nanos(&self) -> String {
        format!("{}.{:09}", self.clock(), self.nanos)
    }

    fn asctime(&self) -> String {
        const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let weekday = DAYS.get(self.weekday).unwrap_or(&"");
        let month = MONTHS.get(self.month as usize - 1).unwrap_or(&"");
        format!("{weekday} {month} {:2} {} {}", self.day, self.clock(), self.year)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_taken_apart_as_the_calendar_says() {
        let moment = Civil::from_nanoseconds(1_795_449_819_807_580_011);
        assert_eq!(moment.iso_nanos(), "2026-11-23T16:03:39.807580011Z");
        assert_eq!(moment.asctime(), "Mon Nov 23 16:03:39 2026");
        assert_eq!(Civil::from_nanoseconds(951_782_400_000_000_000).iso(), "2000-02-29T00:00:00");
    }
}
