use super::*;
use crate::monitor::transition::tests::at;

const BEAT: Uuid = Uuid::from_u128(1);
const ONE: Uuid = Uuid::from_u128(2);
const TWO: Uuid = Uuid::from_u128(3);

/// Beat sends a heartbeat every 15 s, and may be silent for 60 s more.
fn beat(reported: f64) -> Part {
    Part {
        id: BEAT,
        heard_at: at(reported),
        period: TimeDelta::seconds(15),
        grace: TimeDelta::seconds(60),
        gap: None,
    }
}

/// Workers report every 5 s, and may be silent for 25 s more.
fn worker(id: Uuid, reported: f64) -> Part {
    Part {
        id,
        heard_at: at(reported),
        period: TimeDelta::seconds(5),
        grace: TimeDelta::seconds(25),
        gap: None,
    }
}

#[test]
fn what_has_fallen_silent_together_is_one_host_whoever_is_overdue_first() {
    // The machine dies at 100.
    let parts = [beat(90.0), worker(ONE, 99.0), worker(TWO, 96.0)];
    let lost = |first: Uuid, verdict| {
        let Verdict::Lost(mut ids) = verdict else {
            panic!("{first}: {verdict:?}");
        };
        assert_eq!(ids[0], first);
        ids.sort_unstable();
        assert_eq!(ids, [BEAT, ONE, TWO]);
    };
    for (part, now) in [(parts[2], 126.0), (parts[1], 129.0), (parts[0], 165.0)] {
        lost(part.id, judge(&part, &parts, at(now), &[]));
    }
}

#[test]
fn a_part_waits_for_those_that_report_seldom_and_not_for_long() {
    // Beat reported just before the machine died: it has missed two reports at 129.
    let (one, beat) = (worker(ONE, 96.0), beat(99.0));
    let others = [one, beat];
    assert_eq!(judge(&one, &others, at(126.0), &[]), Verdict::Wait(at(129.0)));
    assert_eq!(
        judge(&one, &others, at(129.0), &[]),
        Verdict::Lost(vec![ONE, BEAT])
    );
    // Deadbeat does not wait that long for a part that reports once a minute.
    let seldom = Part {
        period: TimeDelta::seconds(60),
        ..beat
    };
    let others = [one, seldom];
    assert_eq!(judge(&one, &others, at(126.0), &[]), Verdict::Wait(at(129.0)));
    assert_eq!(judge(&one, &others, at(129.0), &[]), Verdict::Own);
    // When it is itself overdue, the first part already has an incident.
    assert_eq!(
        judge(&seldom, &others, at(219.0), &[]),
        Verdict::Lost(vec![BEAT, ONE])
    );
}

#[test]
fn a_part_that_another_one_has_outlived_is_its_own_fault() {
    let one = worker(ONE, 100.0);
    for (what, others) in [
        ("nobody else is there", vec![one]),
        ("Beat goes on", vec![one, beat(118.0)]),
        ("one of two goes on", vec![one, worker(TWO, 128.0), beat(95.0)]),
        // Its report was due by 105, and may be delayed by 2 s.
        ("it reported once more", vec![one, worker(TWO, 107.1)]),
        (
            "the others died long before",
            vec![one, beat(82.9), worker(TWO, 92.9)],
        ),
    ] {
        assert_eq!(judge(&one, &others, at(130.0), &[]), Verdict::Own, "{what}");
    }
    let together = [one, worker(TWO, 107.0), beat(83.0)];
    assert_eq!(
        judge(&one, &together, at(130.0), &[]),
        Verdict::Lost(vec![ONE, TWO, BEAT])
    );
}

#[test]
fn what_we_could_not_receive_is_no_silence() {
    // A blind spell from 101 to 131: workers have 15 s more to report, and Beat 30 s.
    let spells = [BlindSpell {
        started_at: at(101.0),
        ended_at: at(131.0),
    }];
    let (one, two) = (worker(ONE, 100.0), worker(TWO, 98.0));
    let (now, others) = (at(136.0), [one, two, beat(95.0)]);
    assert_eq!(judge(&one, &others, now, &spells), Verdict::Wait(at(161.0)));
}

#[test]
fn only_what_beat_sent_lately_and_clearly_after_its_last_report_shows_that_it_works() {
    // A period, 2 s of delay, and a clock skew of 10 s.
    assert_eq!(works_after(&beat(100.0), at(200.0)), at(127.0));
    assert_eq!(works_after(&beat(100.0), at(500.0)), at(200.0));
}

#[test]
fn what_was_cut_off_with_others_has_as_long_as_the_sdk_waits_to_return() {
    let one = worker(ONE, 100.0);
    let back = |from, to, reported| Part {
        gap: Some((at(from), at(to))),
        ..worker(TWO, reported)
    };
    for (what, other, now, expected) in [
        (
            "it has just returned",
            back(99.0, 128.0, 129.0),
            130.0,
            Verdict::Wait(at(143.0)),
        ),
        ("long enough ago", back(99.0, 128.0, 142.0), 143.0, Verdict::Own),
        (
            "it was silent at another time",
            back(107.1, 128.0, 129.0),
            130.0,
            Verdict::Own,
        ),
        ("before", back(60.0, 90.0, 129.0), 130.0, Verdict::Own),
    ] {
        assert_eq!(judge(&one, &[one, other], at(now), &[]), expected, "{what}");
    }
    // A part that never stopped reporting shows that the host was not cut off.
    let others = [one, back(99.0, 128.0, 129.0), beat(125.0)];
    assert_eq!(judge(&one, &others, at(130.0), &[]), Verdict::Own);
}
