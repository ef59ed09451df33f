//! How fast bytes may go: to one host, and to all together. Knows no host.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A rate that is kept to, over any second.
#[derive(Debug)]
pub struct Limit {
    /// Bytes in a second.
    rate: u64,
    /// Until when everything that was let go has taken its time.
    until: Mutex<Option<Instant>>,
}

impl Limit {
    /// So many bytes in a second.
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), until: Mutex::new(None) }
    }

    /// Takes so many bytes, and says how long to wait before the next.
    pub fn take(&self, bytes: u64, now: Instant) -> Duration {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let end = until.filter(|until| *until > now).unwrap_or(now) + time;
        *until = Some(end);
        end - now
    }
}

/// Reads a rate as people write it, in bytes a second: `100M`, `512k`, `1.5G`.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let rate = digits.parse::<f64>().ok().filter(|_| plain)? * factor;
    (1.0..1e15).contains(&rate).then_some(rate as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, rate) in [
            ("100M", Some(100_000_000)),
            ("1.5G", Some(1_500_000_000)),
            ("512k", Some(512_000)),
            ("7", Some(7)),
            ("", None),
            ("M", None),
            ("-1M", None),
            ("10MB", None),
            ("0", None),
            ("1e3", None),
        ] {
            assert_eq!(parse(text), rate, "{text}");
        }
    }

    #[test]
    fn what_goes_waits_for_what_went() {
        let (limit, now) = (Limit::new(1000), Instant::now());
        assert_eq!(limit.take(500, now), Duration::from_millis(500));
        assert_eq!(limit.take(500, now), Duration::from_millis(1000));
        let later = now + Duration::from_secs(3);
        assert_eq!(limit.take(100, later), Duration::from_millis(100));
    }
}
