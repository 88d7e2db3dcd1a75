//! Limits on how often something may happen: token buckets for rates, windows for quotas.

use chrono::{DateTime, TimeDelta, Utc};

/// How often something may happen: `burst` times at once, and `per_second` times a second in the long run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens of a full bucket; greater than zero.
    pub burst: f64,
    /// Tokens that come back each second; greater than zero.
    pub per_second: f64,
}

/// How much earlier than the last counted time the time of a parallel request may be.
const OUT_OF_ORDER: TimeDelta = TimeDelta::minutes(1);

/// A token bucket. It starts full.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    tokens: f64,
    counted_at: DateTime<Utc>,
}

impl Bucket {
    /// A bucket from which nothing was taken.
    #[must_use]
    pub fn full(rate: &Rate, now: DateTime<Utc>) -> Self {
        Self {
            tokens: rate.burst,
            counted_at: now,
        }
    }

    /// Takes `amount` tokens. A larger amount than a full bucket counts as a full bucket, so that no request is refused
    /// for good.
    ///
    /// # Errors
    /// Too few tokens are left. The bucket is unchanged; the error says how long to wait until it has enough.
    pub fn take(&mut self, rate: &Rate, amount: f64, now: DateTime<Utc>) -> Result<(), TimeDelta> {
        self.refill(rate, now);
        let amount = amount.min(rate.burst);
        // Sums of fractions may be a little below a whole number.
        if self.tokens + 1e-6 >= amount {
            self.tokens = (self.tokens - amount).max(0.0);
            return Ok(());
        }
        let seconds = (amount - self.tokens) / rate.per_second;
        // Rounded up, so that a client that waits exactly that long finds enough tokens.
        Err(TimeDelta::milliseconds((seconds * 1_000.0).ceil() as i64))
    }

    /// Puts back what [`Bucket::take`] took.
    pub fn give_back(&mut self, rate: &Rate, amount: f64) {
        self.tokens = (self.tokens + amount).min(rate.burst);
    }

    /// True if the bucket is full, so that forgetting it changes nothing.
    #[must_use]
    pub fn is_full(&self, rate: &Rate, now: DateTime<Utc>) -> bool {
        let mut then = *self;
        then.refill(rate, now);
        then.tokens >= rate.burst
    }

    /// Adds the tokens since the last request. Parallel requests may come slightly out of order: a time before the last
    /// one adds nothing. After the clock steps back by more than [`OUT_OF_ORDER`], the bucket counts from the new time.
    fn refill(&mut self, rate: &Rate, now: DateTime<Utc>) {
        let micros = (now - self.counted_at).num_microseconds().unwrap_or(i64::MAX);
        let seconds = micros.max(0) as f64 / 1_000_000.0;
        if now > self.counted_at || self.counted_at - now > OUT_OF_ORDER {
            self.counted_at = now;
        }
        self.tokens = (self.tokens + seconds * rate.per_second).min(rate.burst);
    }
}

/// How much of a quota was used in its window. The first use after the window's end begins the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// How much was used in the window.
    pub used: i64,
    /// When the window ends. In the past: nothing is used.
    pub ends_at: DateTime<Utc>,
}

impl Allowance {
    /// Takes up to `wanted` out of `limit` per window. Returns how many were granted.
    ///
    /// A window may begin slightly in the future, because a parallel request read the clock later and was written
    /// first. A window that begins more than its own length in the future was written before the clock stepped back, so
    /// it is replaced.
    pub fn take(&mut self, wanted: i64, limit: i64, window: TimeDelta, now: DateTime<Utc>) -> i64 {
        if self.ends_at <= now || self.ends_at - now >= window * 2 {
            *self = Self {
                used: 0,
                ends_at: now + window,
            };
        }
        let granted = wanted.min(limit - self.used).max(0);
        self.used += granted;
        granted
    }

    /// How long until the window ends.
    #[must_use]
    pub fn wait(&self, now: DateTime<Utc>) -> TimeDelta {
        (self.ends_at - now).max(TimeDelta::zero())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        burst: 10.0,
        per_second: 2.0,
    };

    fn start() -> DateTime<Utc> {
        "2026-07-01T02:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let mut bucket = Bucket::full(&RATE, start());
        for _ in 0..10 {
            bucket.take(&RATE, 1.0, start()).unwrap();
        }

        let wait = bucket.take(&RATE, 1.0, start()).unwrap_err();
        assert_eq!(wait, TimeDelta::milliseconds(500));
        let wait = bucket.take(&RATE, 4.0, start()).unwrap_err();
        assert_eq!(wait, TimeDelta::seconds(2));
        bucket
            .take(&RATE, 1.0, start() + TimeDelta::milliseconds(500))
            .unwrap();
        assert!(!bucket.is_full(&RATE, start() + TimeDelta::seconds(5)));
        assert!(bucket.is_full(&RATE, start() + TimeDelta::milliseconds(5_500)));
    }

    #[test]
    fn more_than_a_bucket_holds_takes_a_full_one() {
        let mut bucket = Bucket::full(&RATE, start());
        bucket.take(&RATE, 1_000.0, start()).unwrap();
        assert_eq!(bucket.take(&RATE, 1_000.0, start()), Err(TimeDelta::seconds(5)));
    }

    #[test]
    fn a_clock_that_is_stepped_back_neither_fills_nor_stops_a_bucket() {
        let mut bucket = Bucket::full(&RATE, start());
        bucket.take(&RATE, 10.0, start()).unwrap();

        let back = start() - TimeDelta::days(1);
        assert!(bucket.take(&RATE, 1.0, back).is_err());
        bucket.take(&RATE, 1.0, back + TimeDelta::seconds(1)).unwrap();
    }

    #[test]
    fn instants_out_of_order_refill_nothing_twice() {
        let mut bucket = Bucket::full(&RATE, start());
        bucket.take(&RATE, 10.0, start()).unwrap();
        let later = start() + TimeDelta::seconds(1);
        let taken = (0..100)
            .filter(|n| {
                let now = if n % 2 == 0 { later } else { start() };
                bucket.take(&RATE, 1.0, now).is_ok()
            })
            .count();
        assert_eq!(taken, 2, "a second refills two");
    }

    #[test]
    fn an_allowance_grants_what_is_left_until_its_window_ends() {
        let (day, at) = (TimeDelta::days(1), |hours| start() + TimeDelta::hours(hours));
        let mut allowance = Allowance {
            used: 0,
            ends_at: start(),
        };
        assert_eq!(allowance.take(7, 10, day, at(0)), 7);
        assert_eq!(allowance.take(7, 10, day, at(23)), 3);
        assert_eq!(allowance.take(1, 10, day, at(23)), 0);
        assert_eq!(allowance.wait(at(23)), TimeDelta::hours(1));
        assert_eq!(allowance.take(11, 10, day, at(24)), 10);
        // A smaller limit than before grants nothing, and takes nothing back.
        assert_eq!(allowance.take(1, 5, day, at(25)), 0);
        // A request that read the clock before the one that began the window.
        let mut allowance = Allowance {
            used: 5,
            ends_at: at(24) + TimeDelta::milliseconds(3),
        };
        assert_eq!(allowance.take(1, 5, day, start()), 0);
        // A window from before the clock was stepped back.
        let mut allowance = Allowance {
            used: 5,
            ends_at: at(48),
        };
        assert_eq!(allowance.take(1, 5, day, start()), 1);
        assert_eq!(allowance.wait(start()), day);
    }

    proptest! {
        /// Over any stretch, no more passes than a burst and the refilled tokens. A client that waits as long as the
        /// error says gets its tokens.
        #[test]
        fn no_more_passes_than_the_rate_allows(steps in prop::collection::vec((0_i64..2_000, 0.1_f64..12.0), 1..200)) {
            let mut bucket = Bucket::full(&RATE, start());
            let (mut now, mut taken) = (start(), 0.0);
            for (milliseconds, amount) in steps {
                now += TimeDelta::milliseconds(milliseconds);
                match bucket.take(&RATE, amount, now) {
                    Ok(()) => taken += amount.min(RATE.burst),
                    Err(wait) => {
                        let mut later = bucket;
                        prop_assert!(later.take(&RATE, amount, now + wait).is_ok());
                    }
                }
                let seconds = (now - start()).num_milliseconds() as f64 / 1_000.0;
                prop_assert!(taken <= RATE.burst + seconds * RATE.per_second + 1e-3);
            }
        }
    }
}
