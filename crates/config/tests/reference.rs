//! The reference is true: the reader reads every key in it, its defaults are what an absent key
//! means, its bounds are enforced, and `docs/configuration.md` is printed from it.
//!
//! Each key is tried in the smallest file in which it may stand.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use common::Memory;
use epochgate_config::keys::{self, Bounds};
use epochgate_config::reference::{
    KEYS, Key, Kind, SECTIONS, TEMPLATE_KEYS, TEMPLATE_SECTIONS, Unset, markdown, roff,
};
use epochgate_config::template::Template;
use epochgate_config::{DaemonSettings, Diagnostics, load, shown_duration, template};
use epochgate_controller::config::{Config, HalfOpenConfig, Role, TunnelConfig};

const README: &str = include_str!("../../../README.md");

/// Values by section and key, as they are written.
type File = BTreeMap<&'static str, BTreeMap<&'static str, String>>;

/// What a file means, for comparing.
#[derive(Debug, PartialEq)]
enum Meaning {
    File(Vec<Arc<TunnelConfig>>, HalfOpenConfig, DaemonSettings),
    Template(Box<Template>),
}

fn is_of_template(path: &str) -> bool {
    TEMPLATE_KEYS.contains(&path)
}

fn all_keys() -> impl Iterator<Item = &'static Key> {
    let sections = SECTIONS.iter().chain(TEMPLATE_SECTIONS);
    sections.flat_map(|section| section.keys)
}

/// The section of a key and its name there.
fn place(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn set(file: &mut File, path: &'static str, value: impl Into<String>) {
    let (section, key) = place(path);
    let keys = file.entry(section).or_default();
    keys.insert(key, value.into());
}

/// A tunnel with the fewest keys, in this role.
fn smallest(role: Role) -> File {
    let mut file = File::new();
    let role = match role {
        Role::Client => "\"client\"",
        Role::Server => "\"server\"",
    };
    set(&mut file, "tunnel.NAME.role", role);
    set(&mut file, "tunnel.NAME.policy", "\"site-to-site\"");
    set(&mut file, "tunnel.NAME.local.id", "\"gate.example\"");
    set(&mut file, "tunnel.NAME.local.psk-file", "\"/good.psk\"");
    set(&mut file, "tunnel.NAME.remote.address", "\"203.0.113.1\"");
    set(&mut file, "tunnel.NAME.traffic.local", "[\"10.1.0.0/16\"]");
    set(&mut file, "tunnel.NAME.traffic.remote", "[\"10.2.0.0/16\"]");
    file
}

fn remove(file: &mut File, path: &'static str) {
    let (section, key) = place(path);
    if let Some(keys) = file.get_mut(section) {
        keys.remove(key);
        if keys.is_empty() {
            file.remove(section);
        }
    }
}

/// The smallest file in which `key` may stand.
fn around(key: &Key) -> File {
    if is_of_template(key.path) {
        return File::new();
    }
    let mut file = smallest(key.role.unwrap_or(Role::Client));
    let by_certificate = |file: &mut File| {
        set(file, "tunnel.NAME.local.cert", "\"/gate.pem\"");
        set(file, "tunnel.NAME.local.key", "\"/gate.key\"");
        set(file, "tunnel.NAME.remote.ca", "[\"/ca.pem\"]");
        remove(file, "tunnel.NAME.local.psk-file");
    };
    match place(key.path) {
        ("tunnel.NAME.local", "cert" | "key" | "signature")
        | ("tunnel.NAME.remote", "ca" | "crl" | "stale-crl") => by_certificate(&mut file),
        ("tunnel.NAME.local", "eap-user" | "eap-password-file") => {
            by_certificate(&mut file);
            remove(&mut file, "tunnel.NAME.local.cert");
            remove(&mut file, "tunnel.NAME.local.key");
            set(&mut file, "tunnel.NAME.local.eap-user", "\"alice\"");
            let password = "\"/good.password\"";
            set(&mut file, "tunnel.NAME.local.eap-password-file", password);
        }
        ("tunnel.NAME.remote", "eap-users-file") => {
            by_certificate(&mut file);
            remove(&mut file, "tunnel.NAME.remote.ca");
            set(&mut file, "tunnel.NAME.remote.eap-users-file", "\"/users\"");
        }
        ("tunnel.NAME.ppk", _) => {
            set(&mut file, "tunnel.NAME.ppk.id", "\"2026\"");
            set(&mut file, "tunnel.NAME.ppk.file", "\"/good.ppk\"");
        }
        ("tunnel.NAME.interface", _) => {
            set(&mut file, "tunnel.NAME.interface.name", "\"ipsec0\"");
        }
        ("pool.NAME", _) | ("tunnel.NAME.virtual", "pools") => {
            file = smallest(Role::Server);
            set(&mut file, "pool.NAME.networks", "[\"10.99.0.0/24\"]");
            set(&mut file, "tunnel.NAME.virtual.pools", "[\"NAME\"]");
            remove(&mut file, "tunnel.NAME.traffic.remote");
        }
        ("tunnel.NAME.virtual", _) => {
            set(&mut file, "tunnel.NAME.virtual.request", "[\"ipv4\"]");
            remove(&mut file, "tunnel.NAME.traffic.local");
        }
        _ => {}
    }
    file
}

fn text_of(file: &File) -> String {
    let mut text = String::new();
    for (section, keys) in file {
        if !section.is_empty() {
            text.push_str(&format!("[{section}]\n"));
        }
        for (key, value) in keys {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text
}

/// Reads a file or, where `key` is one of a template, a template.
fn meaning(key: &Key, file: &File) -> Result<Meaning, Diagnostics> {
    let text = text_of(file);
    if is_of_template(key.path) {
        let template = template::parse("own", "own.toml", &text)?;
        return Ok(Meaning::Template(Box::new(template)));
    }
    let loaded = load("test.toml", &text, &Memory::default())?;
    let Config { tunnels, half_open } = loaded.config;
    Ok(Meaning::File(tunnels, half_open, loaded.daemon))
}

#[track_caller]
fn good(key: &Key, file: &File) -> Meaning {
    match meaning(key, file) {
        Ok(meaning) => meaning,
        Err(mistakes) => unreachable!("{}: {mistakes}\n{}", key.path, text_of(file)),
    }
}

fn with(key: &Key, value: &str) -> File {
    let mut file = around(key);
    set(&mut file, key.path, value);
    file
}

/// Values of `key` that are right, each for itself, and not the default.
fn others(key: &Key) -> Vec<String> {
    let quoted = |text: &str| format!("\"{text}\"");
    match (key.path, key.kind) {
        ("tunnel.NAME.policy", _) => vec![quoted("host-to-host")],
        ("tunnel.NAME.local.id" | "tunnel.NAME.remote.id", _) => vec![quoted("other.example")],
        ("tunnel.NAME.ppk.id", _) => vec![quoted("2027")],
        ("tunnel.NAME.interface.name", _) => vec![quoted("ipsec1")],
        ("tunnel.NAME.local.eap-user", _) => vec![quoted("bob")],
        ("tunnel.NAME.virtual.interface", _) => vec![quoted("eth0")],
        ("tunnel.NAME.ping.source", _) => vec![quoted("10.1.0.1")],
        ("tunnel.NAME.ping.target", _) => vec![quoted("10.2.0.1")],
        ("description", _) => vec![quoted("mine")],
        ("pool.NAME.networks" | "tunnel.NAME.traffic.local", _) => {
            vec!["[\"10.98.0.0/24\"]".into()]
        }
        ("tunnel.NAME.traffic.remote", _) => vec!["[\"10.98.0.0/24\"]".into()],
        ("pool.NAME.dns", _) => vec!["[\"10.2.0.53\"]".into()],
        ("pool.NAME.domains", _) => vec!["[\"hq.example\"]".into()],
        ("tunnel.NAME.virtual.pools", _) => Vec::new(),
        (_, Kind::Word { words, default }) => {
            let words = words.iter().filter(|word| Some(**word) != default);
            words.map(|word| quoted(word)).collect()
        }
        (_, Kind::Words { words, .. }) => {
            let words = words();
            words.iter().map(|word| format!("[{word:?}]")).collect()
        }
        (_, Kind::Flag { default }) => vec![(!default).to_string()],
        (_, Kind::Number(Bounds { least, most, .. })) => vec![least.to_string(), most.to_string()],
        (_, Kind::Duration(Bounds { least, most, .. })) => [least, most]
            .map(shown_duration)
            .map(|it| quoted(&it))
            .into(),
        (
            _,
            Kind::DurationOr {
                bounds,
                word,
                is_default,
            },
        ) => {
            let mut values = vec![quoted(&shown_duration(bounds.least))];
            values.push(quoted(&shown_duration(bounds.most)));
            values.extend((!is_default).then(|| quoted(word)));
            values
        }
        (_, Kind::AddressOrAny) => vec![quoted("198.51.100.7")],
        (_, Kind::Path { .. }) => vec![quoted("/elsewhere")],
        (_, Kind::List { of: "networks", .. }) => vec!["[\"10.97.0.0/24\"]".into()],
        (_, Kind::File { octets: Some(_) }) => vec![quoted("/octets/64")],
        // There is one good file of these kinds.
        (_, Kind::File { octets: None } | Kind::List { .. }) => Vec::new(),
        (path, kind) => unreachable!("{path}: another value of {kind:?}"),
    }
}

/// What else must be said with a value at its bound.
fn companions(key: &Key, value: &str) -> Vec<(&'static str, &'static str)> {
    match (key.path, value) {
        ("tunnel.NAME.recovery.back-off", "\"1m\"") => {
            vec![("tunnel.NAME.recovery.back-off-max", "\"1h\"")]
        }
        ("tunnel.NAME.recovery.back-off-max", "\"50ms\"") => {
            vec![("tunnel.NAME.recovery.back-off", "\"50ms\"")]
        }
        ("ike.cookie-threshold", "99999") => vec![("ike.half-open-max", "100000")],
        ("ike.half-open-max", "1") => vec![("ike.cookie-threshold", "0")],
        ("tunnel.NAME.virtual.request", "[\"ipv6\"]") => {
            vec![("tunnel.NAME.traffic.remote", "[\"2001:db8:2::/48\"]")]
        }
        _ => Vec::new(),
    }
}

fn with_companions(key: &Key, value: &str) -> File {
    let mut file = with(key, value);
    for (path, value) in companions(key, value) {
        set(&mut file, path, value);
    }
    file
}

#[test]
fn every_key_of_the_reference_is_read() {
    // A date is right nowhere: whoever reads the key says so.
    for key in all_keys() {
        let wrong = meaning(key, &with(key, "1979-05-27"));
        let (_, name) = place(key.path);
        let mistakes = wrong.expect_err(key.path).to_string();
        let title = format!("`{name}` must be ");
        assert!(mistakes.contains(&title), "{}: {mistakes}", key.path);
    }
}

#[test]
fn a_key_that_the_reference_lacks_is_refused() {
    let sections = SECTIONS.iter().chain(TEMPLATE_SECTIONS);
    for section in sections.filter(|section| !section.keys.is_empty()) {
        let first = &section.keys[0];
        let mut file = around(first);
        let keys = file.entry(place(first.path).0).or_default();
        keys.insert("zzz-unknown", "1".to_owned());
        let mistakes = meaning(first, &file).expect_err(section.path).to_string();
        assert!(mistakes.contains("unknown key `zzz-unknown`"), "{mistakes}");
    }
}

#[test]
fn a_stated_default_is_what_an_absent_key_means() {
    let mut tried = 0;
    for key in all_keys() {
        let Some(default) = key.default() else {
            continue;
        };
        let mut said = around(key);
        if key.path == "tunnel.NAME.remote.address" {
            // A client must know it.
            said = smallest(Role::Server);
            set(&mut said, "tunnel.NAME.remote.id", "\"peer.example\"");
        }
        set(&mut said, key.path, default);
        let mut absent = said.clone();
        remove(&mut absent, key.path);
        assert_eq!(good(key, &said), good(key, &absent), "{}", key.path);
        tried += 1;
    }
    assert!(tried > 40, "{tried} defaults");
}

#[test]
fn every_value_but_the_default_changes_something() {
    let mut tried = 0;
    for key in all_keys() {
        let mut file = around(key);
        remove(&mut file, key.path);
        let absent = meaning(key, &file).ok();
        let values = others(key).into_iter();
        for value in values.filter(|value| Some(value) != key.default().as_ref()) {
            if (key.path, value.as_str()) == ("tunnel.NAME.start", "\"on-demand\"") {
                continue; // A client's default.
            }
            let file = with_companions(key, &value);
            assert_ne!(Some(good(key, &file)), absent, "{} = {value}", key.path);
            tried += 1;
        }
    }
    assert!(tried > 90, "{tried} values");
}

#[test]
fn the_start_of_a_tunnel_is_what_the_reference_says() {
    let key = all_keys().find(|key| key.path == "tunnel.NAME.start");
    let key = key.expect("a key");
    let stated = "client: `on-demand` (`always` with `virtual.request`), server: `listen`";
    assert_eq!(key.unset, Unset::Is(stated));
    let client = smallest(Role::Client);
    let server = smallest(Role::Server);
    let request = all_keys().find(|key| key.path == "tunnel.NAME.virtual.request");
    let asking = around(request.expect("a key"));
    for (file, word) in [
        (client, "on-demand"),
        (server, "listen"),
        (asking, "always"),
    ] {
        let mut said = file.clone();
        set(&mut said, key.path, format!("{word:?}"));
        assert_eq!(good(key, &file), good(key, &said), "{word}");
    }
}

#[test]
fn a_required_key_is_missed() {
    let mut tried = 0;
    for key in all_keys().filter(|key| key.unset == Unset::Required) {
        let mut file = around(key);
        good(key, &file);
        let (section, name) = place(key.path);
        remove(&mut file, key.path);
        file.entry(section).or_default();
        let mistakes = meaning(key, &file).expect_err(key.path).to_string();
        let title = format!("{name}` is missing");
        assert!(mistakes.contains(&title), "{}: {mistakes}", key.path);
        tried += 1;
    }
    assert_eq!(tried, 6);
}

/// Values just inside and just outside the bounds of a key.
fn at_the_bounds(key: &Key) -> (Vec<String>, Vec<String>) {
    let quoted = |text: &str| format!("\"{text}\"");
    let list = |item: &dyn Fn(usize) -> String, count: usize| {
        let items: Vec<_> = (0..count).map(|index| quoted(&item(index))).collect();
        format!("[{}]", items.join(", "))
    };
    match (key.path, key.kind) {
        (_, Kind::Number(Bounds { least, most, .. })) => {
            let below = i64::from(least) - 1;
            let inside = vec![least.to_string(), most.to_string()];
            (
                inside,
                vec![below.to_string(), (u64::from(most) + 1).to_string()],
            )
        }
        (_, Kind::Duration(bounds) | Kind::DurationOr { bounds, .. }) => {
            let [least, most] = [bounds.least, bounds.most].map(|it| it.as_millis());
            let inside = [bounds.least, bounds.most].map(shown_duration);
            let outside = [least - 1, most + 1].map(|it| format!("{it}ms"));
            (
                inside.map(|it| quoted(&it)).into(),
                outside.map(|it| quoted(&it)).into(),
            )
        }
        (
            _,
            Kind::Text {
                octets_max: Some(most),
                ..
            },
        ) => {
            let text = |length: usize| quoted(&"x".repeat(length));
            (vec![text(1), text(most)], vec![text(0), text(most + 1)])
        }
        (
            _,
            Kind::Path {
                octets_max: Some(most),
                ..
            },
        ) => {
            let text = |length: usize| quoted(&format!("/{}", "x".repeat(length - 1)));
            (vec![text(1), text(most)], vec![text(most + 1)])
        }
        (
            _,
            Kind::File {
                octets: Some((least, most)),
            },
        ) => {
            let text = |length: usize| quoted(&format!("/octets/{length}"));
            (
                vec![text(least), text(most)],
                vec![text(least - 1), text(most + 1)],
            )
        }
        (
            path,
            Kind::List {
                most: Some(most), ..
            },
        ) => {
            let item: &dyn Fn(usize) -> String = match path {
                "pool.NAME.networks" => &|index| format!("10.99.{index}.0/24"),
                "pool.NAME.dns" => &|index| format!("10.2.0.{index}"),
                "pool.NAME.domains" => &|index| format!("d{index}.example"),
                "tunnel.NAME.remote.crl" => &|_| "/etc/epochgate/ca.crl".to_owned(),
                "tunnel.NAME.remote.ca" => &|_| "/ca.pem".to_owned(),
                other => unreachable!("{other}: a list with a bound"),
            };
            (
                vec![list(item, 1), list(item, most)],
                vec![list(item, most + 1)],
            )
        }
        (
            _,
            Kind::Word { .. }
            | Kind::Words { .. }
            | Kind::Flag { .. }
            | Kind::Address
            | Kind::AddressOrAny
            | Kind::Identity
            | Kind::Text { .. }
            | Kind::Path { .. }
            | Kind::File { .. }
            | Kind::List { .. },
        ) => (Vec::new(), Vec::new()),
    }
}

#[test]
fn a_stated_bound_is_enforced() {
    let mut tried = 0;
    for key in all_keys() {
        let (inside, outside) = at_the_bounds(key);
        for value in inside {
            good(key, &with_companions(key, &value));
        }
        for value in outside {
            let read = meaning(key, &with_companions(key, &value));
            assert!(read.is_err(), "{} = {value}", key.path);
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried} values");
}

#[test]
fn a_key_of_one_role_does_nothing_in_the_other() {
    // `epoch.wait` of a client is read and means nothing; the others are refused.
    let mut refused = BTreeSet::new();
    for key in all_keys() {
        let (Some(role), Some(value)) = (key.role, others(key).into_iter().next()) else {
            continue;
        };
        let other = match role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let mut file = smallest(other);
        set(&mut file, key.path, value);
        if meaning(key, &file).is_err() {
            refused.insert(key.path);
        }
    }
    let wanted = BTreeSet::from([
        "tunnel.NAME.epoch.server-rekey",
        "tunnel.NAME.virtual.interface",
        "tunnel.NAME.virtual.request",
    ]);
    assert_eq!(refused, wanted);
}

#[test]
fn numbers_that_the_prose_names_are_enforced() {
    let name =
        |length: usize| text_of(&smallest(Role::Client)).replace("NAME", &"n".repeat(length));
    assert!(load("t", &name(keys::NAME_LEN_MAX), &Memory::default()).is_ok());
    assert!(load("t", &name(keys::NAME_LEN_MAX + 1), &Memory::default()).is_err());
    let pairs = |count: usize| {
        let mut file = smallest(Role::Client);
        let networks: Vec<_> = (0..count).map(|it| format!("\"10.2.{it}.0/24\"")).collect();
        let networks = format!("[{}]", networks.join(", "));
        set(&mut file, "tunnel.NAME.traffic.remote", networks);
        load("t", &text_of(&file), &Memory::default())
    };
    assert!(pairs(keys::PAIRS_MAX).is_ok());
    assert!(pairs(keys::PAIRS_MAX + 1).is_err());
}

#[test]
fn no_key_is_there_twice() {
    for keys in [KEYS, TEMPLATE_KEYS] {
        let unique: BTreeSet<_> = keys.iter().collect();
        assert_eq!(unique.len(), keys.len());
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // A test may read and write the page that it is about.
fn the_page_is_what_the_reference_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value != "0") {
        std::fs::write(&path, &page).expect("docs/configuration.md is written");
    }
    let there = std::fs::read_to_string(&path).expect("docs/configuration.md");
    assert!(
        there == page,
        "docs/configuration.md differs from the reference. Change crates/config/src/reference, then: \
         UPDATE_GOLDEN=1 cargo test -p epochgate-config --test reference"
    );
}

#[test]
fn both_pages_have_every_key_and_nothing_unfilled() {
    let (markdown, roff) = (markdown(), roff());
    for key in all_keys() {
        let name = match is_of_template(key.path) {
            true => key.path,
            false => key.name(),
        };
        assert!(markdown.contains(&format!("\n| `{name}` |")), "{name}");
        let name = name.replace('-', "\\-");
        assert!(roff.contains(&format!("\n\\fB{name}\\fR\n")), "{name}");
    }
    for section in SECTIONS.iter().filter(|section| !section.keys.is_empty()) {
        let path = section.path;
        assert!(markdown.contains(&format!("\n## `{path}`\n")), "{path}");
        assert!(roff.contains(&format!("\n.SS \"[{path}]\"\n")), "{path}");
    }
    for page in [&markdown, &roff] {
        assert!(!page.contains("{{") && !page.contains("}}"));
    }
}

#[test]
fn the_man_page_has_no_request_but_those_of_man() {
    const REQUESTS: [&str; 15] = [
        ".nh", ".ad", ".TH", ".SH", ".SS", ".TP", ".PP", ".IP", ".RS", ".RE", ".EX", ".EE", ".B",
        ".BR", ".I",
    ];
    let page = roff();
    for line in page.lines() {
        assert!(line.is_ascii(), "{line}");
        assert!(!line.starts_with('\''), "{line}");
        if line.starts_with('.') {
            let request = line.split(' ').next().unwrap_or_default();
            assert!(REQUESTS.contains(&request), "{line}");
        }
    }
    let headings: Vec<_> = page
        .lines()
        .filter_map(|it| it.strip_prefix(".SH "))
        .collect();
    let wanted = ["\"NAME\"", "\"SYNOPSIS\"", "\"DESCRIPTION\""];
    assert_eq!(headings[..3], wanted);
    for name in ["\"SECTIONS\"", "\"EXAMPLES\"", "\"FILES\"", "\"SEE ALSO\""] {
        assert!(headings.contains(&name), "{name}");
    }
}

/// The TOML blocks of a Markdown text.
fn examples(markdown: &str) -> Vec<String> {
    let blocks = markdown.split("```toml").skip(1);
    blocks
        .filter_map(|rest| rest.split("```").next())
        // What the block is, which other tests know.
        .filter_map(|block| block.split_once('\n'))
        .map(|(_, block)| block.to_owned())
        .collect()
}

#[test]
fn every_example_is_a_right_configuration() {
    let mut count = 0;
    let examples = [&markdown(), README].map(examples);
    for example in examples.into_iter().flatten() {
        let loaded = load("an example", &example, &Memory::default());
        assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn the_last_example_names_every_key() {
    let example = examples(&markdown()).pop().unwrap_or_default();
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
