use proptest::prelude::*;

use super::super::SolarEvent;
use super::*;

/// Celery's search, one day after another.
fn day_by_day(search: &Search, crossing: &Crossing) -> Option<DateTime<Utc>> {
    let mut start = 0.0;
    for _ in 0..MAX_SEARCH_DAYS {
        let day = search.day(start)?;
        let found = search.crossing_in(&day, start, crossing);
        if let Some(instant) = found.and_then(|found| search.instant(found)) {
            return Some(instant);
        }
        start = search.transit(&day, start, PI);
    }
    search.instant(start)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Avoids the poles. There the search hardly ever converges, and a microsecond at its start changes the result.
    #[test]
    fn leaping_over_idle_days_finds_the_same_slot(
        event in prop::sample::select(SolarEvent::ALL.to_vec()),
        latitude in prop_oneof![48.0..=66.0_f64, 60.0..=72.0, 70.0..=88.0],
        is_south in any::<bool>(),
        longitude in -180.0..=180.0,
        seconds in 0_i64..4_000_000_000,
    ) {
        let latitude = if is_south { -latitude } else { latitude };
        let after = DateTime::from_timestamp(seconds, 0).expect("in the calendar");
        let search = Search::from(after, Place::new(latitude, longitude));

        if let Some(crossing) = event.crossing() {
            let leaping = search.next_crossing(&crossing).expect("a slot");
            let patient = day_by_day(&search, &crossing).expect("a slot");

            prop_assert!((leaping - patient).abs() < TimeDelta::milliseconds(100), "{leaping} {patient}");
        }
    }
}
