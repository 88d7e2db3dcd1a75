use std::process::Stdio;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::incident::Repair;

fn line(command: Command) -> String {
    command.finish().unwrap().to_string()
}

#[test]
fn words_are_typed_as_they_are_and_arguments_are_quoted_where_they_must_be() {
    let command = Command::new("celery -A")
        .arg("shop.app")
        .words("worker -n")
        .arg("celery@w 1");

    assert_eq!(line(command.clone()), "celery -A shop.app worker -n 'celery@w 1'");
    assert_eq!(
        line(command.words("-Q").list(&["a", "b c"])),
        "celery -A shop.app worker -n 'celery@w 1' -Q 'a,b c'"
    );
    assert_eq!(
        line(
            Command::new("kill -TERM")
                .process(42)
                .then("sleep 10")
                .then("kill -KILL")
                .process(42)
        ),
        "kill -TERM 42; sleep 10; kill -KILL 42"
    );
    for (argument, quoted) in [
        ("", "''"),
        ("it's", r#"'it'"'"'s'"#),
        (r"a\", r#"'a'"\\"''"#),
        ("$(id)`id`!!", "'$(id)`id`!!'"),
        ("=ls", "'=ls'"),
        ("~root", "'~root'"),
        ("日本", "'日本'"),
    ] {
        assert_eq!(line(Command::new("x").arg(argument)), format!("x {quoted}"));
    }
}

#[test]
fn what_cannot_be_quoted_safely_makes_no_line() {
    for argument in [
        "a\nb",
        "a\u{3}",
        "\u{202e}a",
        "a\u{200b}",
        "\u{1b}[A",
        "a\u{fffd}",
        "-x",
        "--broker=redis://other",
    ] {
        assert!(
            Command::new("x").arg(argument).words("y").finish().is_err(),
            "{argument:?}"
        );
        assert!(
            Command::new("x").list(&["a", argument]).finish().is_err(),
            "{argument:?}"
        );
    }
    assert_eq!(
        Command::new("x").item("a,b").finish(),
        Err(Unquotable::Comma("a,b".to_owned()))
    );
    // `kill -KILL -1` kills every process that its user may kill.
    for pid in [-1, 0, 1, -42, i64::MAX] {
        assert_eq!(
            Command::new("kill").process(pid).finish(),
            Err(Unquotable::Process(pid))
        );
    }
}

#[test]
fn a_repair_without_a_line_says_what_to_do_in_words() {
    let repair = Repair::command(
        "Start it again.",
        Command::new("celery -A").arg("shop\u{3}\ntouch x"),
    );

    assert_eq!(repair.command, None);
    assert_eq!(
        repair.text,
        r#"Start it again. No command is shown: "shop\u{3}\u{a}touch x" holds characters that are not safe to paste. Type it by hand."#
    );
}

#[test]
fn a_line_that_an_older_version_stored_is_dropped_when_it_is_not_safe() {
    let read = |command: &str| -> Repair {
        serde_json::from_value(json!({"text": "t", "command": command})).unwrap()
    };

    assert_eq!(read("celery -A 'shop\u{3}\ntouch x' beat").command, None);
    assert_eq!(read("celery -A shop\u{202e} beat").command, None);
    assert_eq!(
        read("celery -A 'a b' beat").command.unwrap().as_str(),
        "celery -A 'a b' beat"
    );
    let none: Repair = serde_json::from_value(json!({"text": "t", "command": null})).unwrap();
    assert_eq!(none.command, None);
}

/// The arguments that a real shell passes on. The line's program is a shell function that prints each argument and a
/// NUL.
fn passed_on(shell: &str, line: &str) -> Vec<String> {
    let script = format!("celery() {{ printf '%s\\0' \"$@\"; }}\n{line}\n");
    let output = std::process::Command::new(shell)
        .args(["-c", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_shell_reads_exactly_the_arguments(
        app in hostile(), names in proptest::collection::vec(hostile(), 1..4), node in hostile(),
    ) {
        let command = Command::new("celery -A").arg(&app).words("worker -n").item(&node).words("-Q").list(&names);
        let is_safe = |text: &String| text::is_plain(text) && !text.starts_with('-') && !text.contains('\u{fffd}');
        let is_item = |text: &String| is_safe(text) && !text.contains(',');

        match command.finish() {
            Ok(line) => {
                prop_assert!(text::is_plain(line.as_str()));
                let expected = ["-A", &app, "worker", "-n", &node, "-Q", &names.join(",")];
                for shell in ["sh", "bash"] {
                    prop_assert_eq!(passed_on(shell, line.as_str()), expected, "{} {}", shell, line);
                }
            }
            Err(_) => prop_assert!(!(is_safe(&app) && is_item(&node) && names.iter().all(is_item))),
        }
    }
}

/// Names that an attacker would choose to get a command executed.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z'\"\\\\$`!;&|<>(){}*?~#= -]{1,6}",
        2 => Just("'; touch /tmp/pwned; '".to_owned()),
        2 => Just("$(touch /tmp/pwned)".to_owned()),
        1 => "[日é🚀,]",
        1 => "[\\x00-\\x1f\\x7f\\u{202e}\\u{200b}]",
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}
