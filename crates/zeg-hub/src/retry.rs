//! Retry policy: which failures are temporary, and how long to wait before the next attempt.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::ErrorKind,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::settings::Retries;

/// Interval at which the cancel flag is checked during a pause.
const SLICE: Duration = Duration::from_millis(50);

/// Returns whether a failed connection may succeed later.
///
/// A host name that does not exist and a certificate that is not trusted are permanent failures.
pub(crate) fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => !matches!(
            error.kind(),
            // TLS reports an untrusted certificate as one of these.
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::PermissionDenied
        ),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

/// Returns whether an HTTP status is temporary (RFC 9110, RFC 6585): the server is overloaded, slow or broken.
pub(crate) fn status_may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Returns the pause before attempt `failures + 1`.
///
/// The pause doubles with each failure. A random share of up to one half is subtracted, so that many programs that
/// failed at the same time do not retry at the same time.
pub(crate) fn pause(retries: &Retries, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = retries.first_pause.saturating_mul(1 << doublings);
    full.min(retries.longest_pause)
        .mul_f64(1.0 - 0.5 * chance())
}

/// Returns a random number in 0..1, from the random seed that the standard library gives to its hash maps.
fn chance() -> f64 {
    let number = RandomState::new().build_hasher().finish();
    number as f64 / (u64::MAX as f64 + 1.0)
}

/// Returns the pause that a `Retry-After` header asks for: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// Sleeps until the time is over or the flag is set; returns `false` if the flag was set.
pub(crate) fn sleep(duration: Duration, cancel: &AtomicBool) -> bool {
    let start = Instant::now();
    loop {
        if cancel.load(Ordering::Relaxed) {
            return false;
        }
        let left = duration.saturating_sub(start.elapsed());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(SLICE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: Retries = Retries {
        attempts: 5,
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(6),
        progress: 1,
    };

    #[test]
    fn pauses_double_up_to_the_limit() {
        for (failures, full) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 6.0), (u32::MAX, 6.0)] {
            for _ in 0..20 {
                let pause = pause(&RETRIES, failures).as_secs_f64();
                assert!((full / 2.0..=full).contains(&pause), "{failures}: {pause}");
            }
        }
        let pauses: Vec<Duration> = (0..8).map(|_| pause(&RETRIES, 1)).collect();
        assert!(
            pauses.iter().any(|other| *other != pauses[0]),
            "all pauses are equal"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Fri, 20 Nov 2026 19:26:22 GMT").unwrap();
        let read = |value: &str| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(read("7"), Some(7));
        assert_eq!(read(" 0 "), Some(0));
        assert_eq!(read("Fri, 20 Nov 2026 19:27:22 GMT"), Some(60));
        assert_eq!(read("Fri, 20 Nov 2026 19:00:00 GMT"), Some(0));
        assert_eq!(read("18446744073709551616"), None);
        assert_eq!(read("-1"), None);
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn a_pause_ends_when_the_user_cancels() {
        let cancelled = AtomicBool::new(true);
        let start = Instant::now();
        assert!(!sleep(Duration::from_mins(10), &cancelled));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(value in ".{0,40}") {
            let _ = retry_after(&value, SystemTime::UNIX_EPOCH);
        }
    }
}
