//! What `epochgate events` looks like.

use super::*;

fn record(level: Level, tunnel: Option<&str>, epoch: Option<u64>, message: &str) -> EventRecord {
    EventRecord {
        time: "2026-01-02T03:04:05.678901Z".into(),
        level,
        message: message.into(),
        tunnel: tunnel.map(str::to_owned),
        epoch,
        fields: Map::new(),
    }
}

fn story() -> Vec<EventRecord> {
    let mut asked = record(Level::Info, Some("branch"), None, "asked to start");
    asked.fields.insert("by".into(), "uid 0, pid 4711".into());
    let mut installed = record(
        Level::Info,
        Some("branch"),
        Some(3),
        "epoch installed, unproven: in 0x3d297392, out 0xd5ed5c83",
    );
    installed
        .fields
        .insert("event".into(), "epoch-installed".into());
    installed.fields.insert("in".into(), 1_026_126_738.into());
    vec![
        record(Level::Info, None, None, "ready"),
        asked,
        installed,
        record(
            Level::Warn,
            Some("branch"),
            Some(3),
            "gate closed, traffic is held: nothing arrives through the open epoch any more; last \
             error: no response from 2001:db8:1111:2222:3333:4444:5555:6666 in 3 s",
        ),
        record(
            Level::Error,
            Some("branch"),
            None,
            "the peer says \u{1b}]0;owned\u{7}\nand more",
        ),
    ]
}

fn told(width: Option<usize>) -> String {
    let lines = story();
    let lines = lines.iter().map(|it| sentence(it, Paint::Plain, width));
    lines.collect()
}

#[test]
fn events_fit_the_terminal() {
    let mut screens = String::new();
    for width in [80, 200] {
        let text = told(Some(width));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{line}");
        }
        screens.push_str(&format!("=== {width} columns\n{text}"));
    }
    insta::with_settings!({omit_expression => true}, {
        insta::assert_snapshot!("events", screens);
    });
}

#[test]
fn in_a_pipe_each_event_is_a_line() {
    assert_eq!(told(None).lines().count(), story().len());
    assert!(!told(None).contains('\x1b'));
}

#[test]
fn colours_tell_how_loud_it_is_and_change_no_word() {
    let loud = record(Level::Error, None, None, "mend this");
    let coloured = sentence(&loud, Paint::Coloured, None);
    assert_eq!(
        coloured,
        "\x1b[1;31m2026-01-02T03:04:05.678Z ERROR \x1b[0mmend this\n"
    );
    let quiet = record(Level::Info, None, None, "ready");
    assert_eq!(
        sentence(&quiet, Paint::Coloured, None),
        sentence(&quiet, Paint::Plain, None)
    );
}

#[test]
fn what_was_left_out_is_an_object_like_the_others() {
    let line = line_of(&left_out(7)).expect("JSON");
    let told: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(told["event"], "left-out");
    assert_eq!(told["count"], 7);
}
