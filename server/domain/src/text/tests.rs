use proptest::prelude::*;

use super::*;

/// Harmful characters, each with the kind of its fault.
const FAULTS: [(&str, Kind); 16] = [
    ("\u{0}", Kind::Control),
    ("\u{3}", Kind::Control),
    ("\n", Kind::Control),
    ("\t", Kind::Control),
    ("\u{1b}", Kind::Control),
    ("\u{7f}", Kind::Control),
    ("\u{9b}", Kind::Control),
    ("\u{2028}", Kind::Control),
    ("\u{202e}", Kind::Direction),
    ("\u{2066}", Kind::Direction),
    ("\u{200f}", Kind::Direction),
    ("\u{61c}", Kind::Direction),
    ("\u{200b}", Kind::Invisible),
    ("\u{feff}", Kind::Invisible),
    ("\u{ad}", Kind::Invisible),
    ("\u{e0041}", Kind::Invisible),
];

#[test]
fn what_could_steer_a_terminal_or_hide_is_refused_in_names_and_replaced_elsewhere() {
    for (fault, kind) in FAULTS {
        let raw = format!("ab{fault}c");
        let found = fault.chars().next().unwrap();

        for refused in [Text::label(&raw, 200), Text::name(&raw, 200)] {
            assert_eq!(
                refused,
                Err(TextError::Char {
                    position: 3,
                    found,
                    kind
                })
            );
        }
        assert_eq!(Text::cleaned(raw.clone(), 200), "ab\u{fffd}c");
        assert_eq!(visible(&raw), format!("ab{}c", found.escape_unicode()));
        assert!(!is_plain(&raw));
    }
    assert_eq!(
        Text::name("a\u{202e}", 9).unwrap_err().to_string(),
        "holds U+202E, a mark that changes the direction of writing; only visible text is allowed"
    );
}

#[test]
fn names_of_the_world_are_taken_as_they_are() {
    for name in [
        "nightly backup",
        "Straße – 日本語 ✓",
        "می\u{200c}خواهم",
        "क\u{94d}\u{200d}ष",
        "👩\u{200d}🚀",
        "❤\u{fe0f}\u{200d}🔥",
        "1\u{fe0f}\u{20e3}",
        "a\u{a0}b",
        "'\"$`\\!",
    ] {
        assert_eq!(Text::label(name, 200).unwrap(), name);
        assert_eq!(Text::name(name, 200).unwrap(), name);
        assert_eq!(Text::cleaned(name, 200), name);
        assert_eq!(visible(name), name);
    }
}

#[test]
fn a_joiner_stands_between_letters_beyond_ascii_only() {
    for name in [
        "a\u{200d}b",
        "\u{200d}🚀",
        "👩\u{200d}",
        "👩\u{200d}\u{200d}🚀",
        "é\u{200c} é",
        "日\u{200c}\n",
    ] {
        assert!(Text::label(name, 200).is_err(), "{name:?}");
        assert!(!is_plain(name), "{name:?}");
    }
}

#[test]
fn labels_are_composed_and_names_keep_their_bytes() {
    let decomposed = "cafe\u{301}";

    assert_eq!(Text::label(decomposed, 4).unwrap(), "caf\u{e9}");
    assert_eq!(Text::name(decomposed, 5).unwrap(), decomposed);
    assert_eq!(Text::cleaned(decomposed, 5), decomposed);
}

#[test]
fn the_limit_counts_characters_as_they_are_kept() {
    let full = "é".repeat(200);

    assert_eq!(Text::label(&full, 200).unwrap(), full.as_str());
    assert_eq!(
        Text::label(&format!("{full}é"), 200),
        Err(TextError::Long {
            length: 201,
            most: 200
        })
    );
    // Each of these characters becomes two in NFC.
    assert!(Text::label(&"\u{958}".repeat(101), 200).is_err());
    assert_eq!(
        Text::label(&"\u{1100}\u{1161}\u{11a8}".repeat(200), 200)
            .unwrap()
            .chars()
            .count(),
        200
    );
    assert_eq!(
        Text::name(&"x".repeat(2_401), 200),
        Err(TextError::Huge {
            bytes: 2_401,
            most: 200
        })
    );
    let cleaned = Text::cleaned("é".repeat(5_000), 200);
    assert_eq!(cleaned.chars().count(), 200);
    assert!(cleaned.ends_with("é…"));
    assert_eq!(Text::cleaned(full.clone(), 200), full.as_str());
    for blank in ["", " ", "\u{3000}"] {
        assert!(matches!(Text::name(blank, 9), Err(TextError::Blank { .. })));
    }
}

#[test]
fn a_cleaned_text_is_never_a_name() {
    assert!(Text::name(&Text::cleaned("a\u{0}b", 200), 200).is_err());
}

proptest! {
    #[test]
    fn whatever_comes_is_plain_afterwards(raw in ".*|[\\x00-\\x1f\\u{200b}-\\u{2069}a-z👩é]{0,40}", most in 1_usize..50) {
        let cleaned = Text::cleaned(raw.clone(), most);
        prop_assert!(is_plain(&cleaned));
        prop_assert!(cleaned.chars().count() <= most && cleaned.len() <= CHAR_BYTES * most);
        prop_assert!(is_plain(&visible(&raw)));
        for taken in [Text::label(&raw, most), Text::name(&raw, most)].into_iter().flatten() {
            prop_assert!(is_plain(&taken) && taken.chars().count() <= most);
            prop_assert_eq!(Text::label(&taken, most).map(|again| again.nfc().collect::<String>()), Ok(taken.nfc().collect()));
        }
    }
}
