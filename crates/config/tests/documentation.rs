//! `docs/configuration.md` and the reader know the same keys, bounds and defaults, and every
//! example in it is right.

mod common;

use std::collections::BTreeSet;

use common::Memory;
use epochgate_config::keys::{self, Bounds, KEYS};
use epochgate_config::template::TEMPLATE_KEYS;
use epochgate_config::{load, shown_duration};

const REFERENCE: &str = include_str!("../../../docs/configuration.md");
const README: &str = include_str!("../../../README.md");

/// The rows of the tables: their section and their cells.
fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut section = "";
    let mut rows = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_matches('`');
        } else if line.starts_with("| `") {
            let cells = line.trim_matches('|').split('|').map(str::trim);
            rows.push((section, cells.collect()));
        }
    }
    rows
}

fn is_section_of_keys(section: &str) -> bool {
    section == "daemon"
        || section == "ike"
        || section.starts_with("tunnel.")
        || section.starts_with("pool.")
}

#[test]
fn the_reference_describes_every_key_and_no_other() {
    let mut described: BTreeSet<String> = BTreeSet::new();
    for (section, cells) in rows() {
        if is_section_of_keys(section) {
            described.insert(section.to_owned());
            described.insert(format!("{section}.{}", cells[0].trim_matches('`')));
        }
    }
    described.insert("tunnel".to_owned());
    described.insert("pool".to_owned());
    let known: BTreeSet<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(described, known);
}

#[test]
fn the_reference_describes_every_key_of_a_template() {
    let rows = rows();
    let templates = rows
        .iter()
        .filter(|(section, cells)| *section == "Policy templates" && cells.len() == 5);
    let described: BTreeSet<&str> = templates
        .flat_map(|(_, cells)| cells[0].split(", "))
        .map(|key| key.trim_matches('`'))
        .collect();
    let sections = ["traffic", "traffic.client", "traffic.server"];
    let known = TEMPLATE_KEYS.iter().copied();
    let known: BTreeSet<&str> = known.filter(|key| !sections.contains(key)).collect();
    assert_eq!(described, known);
}

fn check_bounds<T: Copy>(section: &str, key: &str, bounds: Bounds<T>, show: impl Fn(T) -> String) {
    let key = format!("`{key}`");
    let rows = rows();
    let row = rows
        .iter()
        .find(|(s, cells)| *s == section && cells[0] == key);
    let cells = row.map(|(_, cells)| cells.as_slice()).unwrap_or_default();
    let [_, _, default, range, _] = cells else {
        unreachable!("{section}.{key} has a row of five cells: {cells:?}");
    };
    assert_eq!(*default, format!("`{}`", show(bounds.default)), "{key}");
    let want = format!("`{}` to `{}`", show(bounds.least), show(bounds.most));
    assert_eq!(*range, want, "{key}");
}

#[test]
fn the_reference_gives_the_bounds_that_the_reader_enforces() {
    let number = |n: u32| n.to_string();
    let (ping, epoch) = ("tunnel.NAME.ping", "tunnel.NAME.epoch");
    check_bounds("ike", "cookie-threshold", keys::COOKIE_THRESHOLD, number);
    check_bounds("ike", "half-open-max", keys::HALF_OPEN_MAX, number);
    let per_address = keys::HALF_OPEN_PER_ADDRESS;
    check_bounds("ike", "half-open-per-address", per_address, number);
    let lifetime = keys::HALF_OPEN_LIFETIME;
    check_bounds("ike", "half-open-lifetime", lifetime, shown_duration);
    check_bounds(ping, "interval", keys::PING_INTERVAL, shown_duration);
    check_bounds(ping, "attempts", keys::PING_ATTEMPTS, number);
    check_bounds(ping, "idle", keys::PING_IDLE, shown_duration);
    let path = "tunnel.NAME.path";
    check_bounds(path, "fragment-size", keys::FRAGMENT_SIZE, number);
    check_bounds(path, "nat-keepalive", keys::NAT_KEEPALIVE, shown_duration);
    check_bounds(epoch, "lifetime", keys::EPOCH_LIFETIME, shown_duration);
    check_bounds(epoch, "drain", keys::EPOCH_DRAIN, shown_duration);
    let recovery = "tunnel.NAME.recovery";
    check_bounds(recovery, "back-off", keys::BACK_OFF, shown_duration);
    check_bounds(recovery, "back-off-max", keys::BACK_OFF_MAX, shown_duration);
    check_bounds("Policy templates", "priority", keys::PRIORITY, number);
    let texts = [
        format!("`{}`", keys::DEFAULT_SOCKET),
        format!("`{}`", keys::DEFAULT_STATE_DIR),
        format!("`{}`", keys::DEFAULT_POLICIES),
        format!("{} to {} octets", keys::PSK_LEN_MIN, keys::PSK_LEN_MAX),
        format!("{} pairs", keys::PAIRS_MAX),
        format!("{} tunnels", keys::TUNNELS_MAX),
        format!("{} characters", keys::NAME_LEN_MAX),
    ];
    for text in texts {
        assert!(REFERENCE.contains(&text), "{text}");
    }
}

/// The TOML blocks of a Markdown text.
fn examples(markdown: &'static str) -> Vec<&'static str> {
    let blocks = markdown.split("```toml\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_example_is_a_right_configuration() {
    let mut count = 0;
    for example in examples(REFERENCE).into_iter().chain(examples(README)) {
        let loaded = load("an example", example, &Memory::default());
        assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn the_last_example_names_every_key() {
    let example = examples(REFERENCE).pop().unwrap_or_default();
    for key in KEYS {
        let name = key.rsplit('.').next().unwrap_or_default();
        let name = if name == keys::ANY_NAME {
            "branch"
        } else {
            name
        };
        assert!(example.contains(name), "{key}");
    }
}

#[test]
fn the_command_line_and_the_configuration_agree_on_the_socket() {
    let control = include_str!("../../control/src/lib.rs");
    let want = format!(
        "pub const DEFAULT_SOCKET: &str = {:?};",
        keys::DEFAULT_SOCKET
    );
    assert!(control.contains(&want));
}
