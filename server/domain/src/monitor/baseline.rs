//! Learns how long the runs of a monitor take. It keeps a few numbers, and each successful run moves each of them a
//! little.

use chrono::TimeDelta;

/// Number of runs that the baseline needs before it judges lengths.
const LEARNED_AFTER: i32 = 20;
/// A run hangs if it is this many times longer than usual, and this many times longer than the longest run…
const TIMES_USUAL: f64 = 4.0;
const TIMES_LONGEST: f64 = 1.5;
/// … and longer by this many seconds. Example: a task of one second may wait a minute for a database.
const BEYOND_SECONDS: f64 = 60.0;
/// A run did not do its work if it is this many times shorter than the shortest run…
const TIMES_SHORTER: f64 = 10.0;
/// … and if the shortest run takes at least this many seconds. The lengths of shorter tasks prove nothing.
const WORTH_SECONDS: f64 = 1.0;
/// This many runs in a row that are far too short are reported. Fewer may have had nothing to do.
const ALERT_AFTER: i32 = 3;
/// This many in a row are normal: somebody made the task faster, or it has two kinds of runs.
const NORMAL_AFTER: i32 = 6;
/// Each run moves the longest length by this share of its distance to the usual length. So one odd run is forgotten in
/// time.
const FORGETTING: f64 = 0.01;
/// The same for the shortest length, as a share of the difference of the logarithms. Example: an hourly job has nothing
/// to do on weekends, and has some 120 runs between two weekends. The lengths learned on one weekend must still hold on
/// the next.
const FORGETTING_SHORTEST: f64 = 0.002;
/// How far one run moves the usual length. The usual length estimates the median in logarithms, so outliers have little
/// weight.
const STEP: f64 = 0.1;

/// The learned lengths, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// True if the baseline limits how long a run may take. False: somebody set a longest run.
    pub bounds: bool,
    /// Number of runs that the lengths were learned from.
    pub runs: i32,
    /// The usual length.
    pub usual: f64,
    /// The shortest length, moved slowly towards the usual one.
    pub shortest: f64,
    /// The longest length, moved slowly towards the usual one.
    pub longest: f64,
    /// How many of the newest runs in a row were far too short. The baseline learned nothing from them.
    pub odd: i32,
}

impl Baseline {
    /// A baseline without any run.
    #[must_use]
    pub fn empty(bounds: bool) -> Self {
        Self {
            bounds,
            runs: 0,
            usual: 0.0,
            shortest: 0.0,
            longest: 0.0,
            odd: 0,
        }
    }

    /// Adds the length of a successful run. Returns true if the run is one of several in a row that were all far
    /// shorter than any run before. The baseline learns from every run that is not far shorter. Runs count in the order
    /// in which their ends arrive.
    pub fn is_too_fast(&mut self, length: TimeDelta) -> bool {
        let is_odd = self.is_far_shorter(length);
        if is_odd && self.odd + 1 < NORMAL_AFTER {
            self.odd += 1;
            return self.odd >= ALERT_AFTER;
        }
        self.odd = 0;
        self.learn(length);
        false
    }

    fn learn(&mut self, length: TimeDelta) {
        let seconds = (length.num_milliseconds().max(1)) as f64 / 1_000.0;
        if self.runs == 0 {
            self.usual = seconds;
            self.shortest = seconds;
            self.longest = seconds;
        } else {
            // Move faster while few runs are known.
            let step = STEP.max(1.0 / f64::from(self.runs + 1));
            self.usual *= (seconds.ln() - self.usual.ln()).clamp(-step, step).exp();
            let shortest = self.shortest * (self.usual / self.shortest).powf(FORGETTING_SHORTEST);
            self.shortest = shortest.min(seconds);
            self.longest = (self.longest + FORGETTING * (self.usual - self.longest)).max(seconds);
        }
        self.runs = self.runs.saturating_add(1);
    }

    /// The length beyond which a run is far longer than any run before. None: the baseline knows too few runs, or
    /// somebody set a longest run.
    #[must_use]
    pub fn longest_run(&self) -> Option<TimeDelta> {
        let seconds = (self.usual * TIMES_USUAL).max(self.longest * TIMES_LONGEST) + BEYOND_SECONDS;
        (self.bounds && self.runs >= LEARNED_AFTER).then(|| crate::time::span(seconds))
    }

    fn is_far_shorter(&self, length: TimeDelta) -> bool {
        let seconds = length.num_milliseconds() as f64 / 1_000.0;
        self.runs >= LEARNED_AFTER
            && self.shortest >= WORTH_SECONDS
            && seconds * TIMES_SHORTER < self.shortest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learned(lengths: &[i64]) -> Baseline {
        let mut baseline = Baseline::empty(true);
        for milliseconds in lengths {
            let _ = baseline.is_too_fast(TimeDelta::milliseconds(*milliseconds));
        }
        baseline
    }

    #[test]
    fn nothing_is_concluded_from_a_few_runs() {
        let mut few = learned(&[5_000; 19]);
        assert_eq!(few.longest_run(), None);
        assert!((0..3).all(|_| !few.is_too_fast(TimeDelta::milliseconds(1))));
        let enough = learned(&[5_000; 20]);
        assert_eq!(enough.longest_run(), Some(TimeDelta::seconds(80)));
        assert!(enough.is_far_shorter(TimeDelta::milliseconds(499)));
        assert!(!enough.is_far_shorter(TimeDelta::milliseconds(500)));
    }

    #[test]
    fn a_run_with_nothing_to_do_is_silent_however_often_it_comes() {
        let mut baseline = learned(&[1_300; 24]);
        for _ in 0..10 {
            assert!(!baseline.is_too_fast(TimeDelta::milliseconds(50)));
            assert!(
                !baseline.is_too_fast(TimeDelta::milliseconds(50)),
                "nor the second"
            );
            assert!(!baseline.is_too_fast(TimeDelta::milliseconds(1_300)));
        }
    }

    #[test]
    fn nothing_is_learned_from_a_row_of_short_runs_until_they_are_how_it_is() {
        let short = TimeDelta::milliseconds(100);
        let mut baseline = learned(&[5_000; 30]);
        let before = baseline;

        let alerted: Vec<bool> = (0..5).map(|_| baseline.is_too_fast(short)).collect();
        assert_eq!(alerted, [false, false, true, true, true]);
        assert_eq!(baseline, Baseline { odd: 5, ..before });
        assert!(!baseline.is_too_fast(short), "it is faster now");
        assert!(!baseline.is_too_fast(short));
    }

    #[test]
    fn a_task_with_two_kinds_of_run_is_never_reported() {
        let mut baseline = learned(&[5_000; 30]);
        for _ in 0..100 {
            assert!(!baseline.is_too_fast(TimeDelta::milliseconds(100)));
            assert!(!baseline.is_too_fast(TimeDelta::seconds(5)));
        }
    }

    #[test]
    fn an_hourly_job_that_rests_at_weekends_is_reported_on_the_first_one_at_most() {
        let mut baseline = learned(&[60_000; 120]);
        let mut alerted = Vec::new();
        for _ in 0..20 {
            let rest = (0..48).filter(|_| baseline.is_too_fast(TimeDelta::milliseconds(50)));
            alerted.push(rest.count());
            assert!((0..120).all(|_| !baseline.is_too_fast(TimeDelta::minutes(1))));
        }
        assert_eq!(alerted[0], 3);
        assert!(alerted[1..].iter().all(|alerted| *alerted == 0), "{alerted:?}");
    }

    #[test]
    fn a_job_that_was_quick_long_ago_is_judged_by_how_it_is_now() {
        let mut lengths = vec![50; 30];
        lengths.extend([60_000; 1_500]);
        let mut baseline = learned(&lengths);

        let alerted = (0..3).filter(|_| baseline.is_too_fast(TimeDelta::milliseconds(50)));

        assert_eq!(alerted.count(), 1, "the third one");
    }

    #[test]
    fn a_limit_that_somebody_set_is_not_second_guessed() {
        let mut baseline = learned(&[5_000; 30]);
        baseline.bounds = false;
        assert_eq!(baseline.longest_run(), None);
    }

    #[test]
    fn short_tasks_are_never_too_fast() {
        let mut baseline = learned(&[900; 50]);
        assert!((0..9).all(|_| !baseline.is_too_fast(TimeDelta::zero())));
    }

    #[test]
    fn one_odd_run_is_forgotten() {
        let mut lengths = vec![10_000; 30];
        lengths.push(3_600_000);
        let at_once = learned(&lengths).longest_run().unwrap();
        assert!(at_once >= TimeDelta::seconds(5_400));
        lengths.extend([10_000; 700]);
        let later = learned(&lengths).longest_run().unwrap();
        assert!(later < TimeDelta::seconds(120), "{later}");
    }

    proptest! {
        /// If a run of a known length comes again, it is not odd. A length that a task has for long does not stay odd.
        #[test]
        fn what_was_just_learned_is_not_odd(lengths in prop::collection::vec(1_i64..100_000_000, 20..60)) {
            let mut baseline = learned(&lengths);
            let last = TimeDelta::milliseconds(*lengths.last().unwrap());
            if baseline.odd == 0 {
                prop_assert!(!baseline.is_far_shorter(last));
                prop_assert!(baseline.longest_run().unwrap() > last);
            }
            let alerted = (0..NORMAL_AFTER).filter(|_| baseline.is_too_fast(last)).count();
            prop_assert!(alerted <= (NORMAL_AFTER - ALERT_AFTER) as usize);
            prop_assert!(!baseline.is_far_shorter(last));
        }
    }
}
