use super::*;

const ARCSECOND: f64 = PI / (180.0 * 3_600.0);

#[test]
fn parabolas_stay_with_the_sun_all_day() {
    let first: DateTime<Utc> = "2026-01-01T05:00:00Z".parse().expect("a test instant");
    let origin = Origin::at(first);
    for start in (0..366).map(f64::from) {
        let day = Day::from(origin, start).expect("in the years of the crate");
        for hour in -1..=25 {
            let days = start + f64::from(hour) / 24.0;

            let sun = Position::at(origin, days).expect("in the years of the crate");

            let offset = days - day.middle;
            let errors = [
                day.equation_of_time.at(offset) - sun.equation_of_time,
                day.declination.at(offset) - sun.declination,
            ];
            let worst = errors.map(f64::abs).into_iter().fold(0.0, f64::max);
            assert!(
                worst < 0.01 * ARCSECOND,
                "day {start} hour {hour}: {}",
                worst / ARCSECOND
            );
        }
    }
}

/// `ephem.delta_t` of PyEphem 4.2.1.
#[test]
fn delta_t_is_that_of_pyephem() {
    let by_pyephem = [
        (2000.0, 63.83),
        (2010.0, 66.07),
        (2017.9, 68.93),
        (2018.0, 68.97),
        (2026.0, 73.77),
        (2040.0, 90.66),
        (2100.0, 225.33),
        (2118.9, 265.80),
        (2120.0, 268.01),
        (2500.0, 1_459.72),
    ];
    for (year, expected) in by_pyephem {
        let found = delta_t_of_pyephem(year);

        assert!(
            (found - expected).abs() < 1.0,
            "{year}: {found} instead of {expected}"
        );
    }
}

#[test]
fn the_tilt_of_the_axis_decreases_slowly() {
    let tilt = |text: &str| {
        Origin::at(text.parse().expect("a test instant"))
            .tilt()
            .to_degrees()
    };

    assert!((tilt("2000-01-01T12:00:00Z") - 23.439_291).abs() < 1e-6);
    assert!((tilt("2100-01-01T12:00:00Z") - 23.426_287).abs() < 1e-5);
}
