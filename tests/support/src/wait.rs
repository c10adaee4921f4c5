//! Waiting for what will be true, with words for when it isn't.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Calls `look` until it gives a value; the error of the last try says why there was none in time.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(err) if begun.elapsed() >= limit => {
                return Err(anyhow!("not within {}: {what}: {err:#}", crate::tools::seconds(limit)));
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
