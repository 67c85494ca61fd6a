//! The small languages inside a file's texts: durations, addresses, networks, identities, words.

use std::net::IpAddr;
use std::time::Duration;

use epochgate_controller::config::Identity;
use epochgate_controller::distinguished_name::DistinguishedName;
use ipnet::IpNet;

use crate::diagnostic::{Sink, Span, listed, nearest, quoted};
use crate::keys::{Bounds, DISTINGUISHED_NAME_LEN_MAX, IDENTITY_LEN_MAX};
use crate::reader::{At, Section};

/// "Chosen by the route" (local) or "anybody" (remote).
pub(crate) const ANY: &str = "%any";

/// Units of a duration and their length in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// "250ms", "1h": one whole number and one unit (ms, s, m, h, d). `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    let number: u64 = number.parse().ok()?;
    number.checked_mul(*milliseconds).map(Duration::from_millis)
}

/// A duration as a user would write it: in the largest unit that divides it.
#[must_use]
pub fn shown_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let largest = UNITS
        .iter()
        .rev()
        .find(|(_, length)| milliseconds >= *length && milliseconds.is_multiple_of(*length));
    match largest {
        Some((unit, length)) => format!("{}{unit}", milliseconds / length),
        None => format!("{milliseconds}ms"),
    }
}

/// What a key says, or its default.
#[derive(Clone, Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
    /// The key is there and was reported: the value is only its default, and says nothing about
    /// other settings.
    pub(crate) is_wrong: bool,
}

/// The duration of `key`, or its default; inside its bounds.
pub(crate) fn read_duration(
    section: &Section<'_>,
    key: &str,
    bounds: Bounds<Duration>,
    sink: &mut Sink,
) -> Setting<Duration> {
    let default = Setting {
        value: bounds.default,
        span: section.span_of(key),
        is_wrong: section.has(key),
    };
    let Some(text) = section.text(key, sink) else {
        return default;
    };
    let range = format!(
        "{} to {}",
        shown_duration(bounds.least),
        shown_duration(bounds.most)
    );
    let Some(value) = parse_duration(text.value) else {
        let title = format!("{} is not a duration", quoted(text.value));
        sink.error(text.span, title, "a number and a unit are wanted")
            .help("units are ms, s, m, h and d: \"250ms\", \"10s\", \"1h\"");
        return default;
    };
    if !(bounds.least..=bounds.most).contains(&value) {
        let title = format!("{} is out of bounds: {}", quoted(key), text.value);
        sink.error(text.span, title, format!("must be {range}"));
        return default;
    }
    Setting {
        value,
        is_wrong: false,
        ..default
    }
}

/// The number of `key`, or its default; inside its bounds.
pub(crate) fn read_number(
    section: &Section<'_>,
    key: &str,
    bounds: Bounds<u32>,
    sink: &mut Sink,
) -> Setting<u32> {
    let default = Setting {
        value: bounds.default,
        span: section.span_of(key),
        is_wrong: section.has(key),
    };
    let Some(number) = section.number(key, sink) else {
        return default;
    };
    match u32::try_from(number.value) {
        Ok(value) if (bounds.least..=bounds.most).contains(&value) => Setting {
            value,
            is_wrong: false,
            ..default
        },
        _ => {
            let title = format!("{} is out of bounds", quoted(key));
            let range = format!("must be {} to {}", bounds.least, bounds.most);
            sink.error(number.span, title, range);
            default
        }
    }
}

/// The words that a key may be.
pub(crate) struct Words<T, const N: usize>(pub(crate) [(&'static str, T); N]);

impl<T, const N: usize> Words<T, N> {
    /// The words alone, for the reference.
    pub(crate) const fn names(&self) -> [&'static str; N] {
        let mut names = [""; N];
        let mut index = 0;
        while index < N {
            names[index] = self.0[index].0;
            index += 1;
        }
        names
    }
}

/// The words that a key may be, and the one that it is when it is not given.
pub(crate) struct Choice<T, const N: usize> {
    pub(crate) words: Words<T, N>,
    /// Index of the default.
    pub(crate) default: usize,
}

impl<T: Copy, const N: usize> Choice<T, N> {
    /// What an absent key means.
    pub(crate) const fn default(&self) -> T {
        self.words.0[self.default].1
    }

    /// The word for it, for the reference.
    pub(crate) const fn default_name(&self) -> &'static str {
        self.words.0[self.default].0
    }
}

/// One of a few words. `None`: the key is absent or wrong.
pub(crate) fn read_word<T: Copy, const N: usize>(
    section: &Section<'_>,
    key: &str,
    words: &Words<T, N>,
    sink: &mut Sink,
) -> Option<At<T>> {
    let text = section.text(key, sink)?;
    word(key, &text, &words.0, sink).map(|value| At {
        value,
        span: text.span,
    })
}

/// One of a few words; the default when the key is absent or wrong.
pub(crate) fn read_choice<T: Copy, const N: usize>(
    section: &Section<'_>,
    key: &str,
    choice: &Choice<T, N>,
    sink: &mut Sink,
) -> T {
    read_word(section, key, &choice.words, sink).map_or(choice.default(), |word| word.value)
}

/// `true` or `false`; the default when the key is absent or wrong.
pub(crate) fn read_flag(section: &Section<'_>, key: &str, default: bool, sink: &mut Sink) -> bool {
    section.flag(key, sink).map_or(default, |flag| flag.value)
}

/// The words of a list, and those that would be words if they were not too weak.
pub(crate) struct Vocabulary<'w, T> {
    pub(crate) words: &'w [(&'w str, T)],
    /// A name, alone or as a part of a name, and what is wrong with it.
    pub(crate) weak: &'w [(&'w str, &'w str)],
}

impl<T> Vocabulary<'_, T> {
    /// Why `text` is too weak, if it is: "3des-sha1" for either reason, "aes128gcm8" for its end.
    fn weakness(&self, text: &str) -> Option<&str> {
        if self.words.iter().any(|(word, _)| *word == text) {
            return None;
        }
        let parts: Vec<&str> = text.split('-').collect();
        let is_part = |name: &str| {
            parts
                .iter()
                .any(|part| *part == name || (part.starts_with("aes") && part.ends_with(name)))
        };
        let mut weak = self.weak.iter();
        weak.find(|(name, _)| is_part(name)).map(|(_, why)| *why)
    }
}

/// The list of words of `key`, best first, without repetition. `None`: absent, or a word is wrong.
pub(crate) fn read_listed<T: Copy + PartialEq>(
    section: &Section<'_>,
    key: &str,
    vocabulary: &Vocabulary<'_, T>,
    sink: &mut Sink,
) -> Option<At<Vec<T>>> {
    let texts = section.texts(key, sink)?;
    let mut values = Vec::with_capacity(texts.list.len());
    let mut whole = texts.is_whole;
    for text in &texts.list {
        if let Some(why) = vocabulary.weakness(text.value) {
            let title = format!("{} is too weak", quoted(text.value));
            sink.error(text.span.clone(), title, "not supported")
                .help(format!("{why}: configure a stronger one on both ends"));
            whole = false;
            continue;
        }
        match word(key, text, vocabulary.words, sink) {
            Some(value) if values.contains(&value) => {
                let title = format!("{} is named twice", quoted(text.value));
                sink.error(text.span.clone(), title, "once is enough");
            }
            Some(value) => values.push(value),
            None => whole = false,
        }
    }
    whole.then_some(At {
        value: values,
        span: texts.span,
    })
}

fn word<T: Copy>(key: &str, text: &At<&str>, words: &[(&str, T)], sink: &mut Sink) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text.value);
    if let Some((_, value)) = found {
        return Some(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let title = format!("{} is no value of {}", quoted(text.value), quoted(key));
    let label = format!("must be {}", listed(&names));
    let mistake = sink.error(text.span.clone(), title, label);
    if let Some(meant) = nearest(text.value, &names) {
        mistake.help(format!("did you mean {}?", quoted(meant)));
    }
    None
}

/// An outer address: one that a packet can be sent from or to.
pub(crate) fn outer_address(text: &At<&str>, sink: &mut Sink) -> Option<IpAddr> {
    let address = address(text, sink)?;
    let objection = match address {
        address if address.is_unspecified() => Some("stands for no address; write \"%any\""),
        address if address.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("is link-local, which says nothing without an interface")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in IPv6 dress; write the IPv4 address")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    if let Some(objection) = objection {
        let title = format!("{} {objection}", quoted(text.value));
        sink.error(text.span.clone(), title, "not usable as an end of a tunnel");
        return None;
    }
    Some(address)
}

/// Any address.
pub(crate) fn address(text: &At<&str>, sink: &mut Sink) -> Option<IpAddr> {
    if let Ok(address) = text.value.parse() {
        return Some(address);
    }
    let title = format!("{} is not an IP address", quoted(text.value));
    let mistake = sink.error(
        text.span.clone(),
        title,
        "an IPv4 or IPv6 address is wanted",
    );
    let host = text.value.split_once('/').map(|(host, _)| host);
    if let Some(host) = host.filter(|host| host.parse::<IpAddr>().is_ok()) {
        mistake.help(format!("without the prefix length: \"{host}\""));
    }
    None
}

/// A network in CIDR form; an address alone is the network of that host.
pub(crate) fn network(text: &At<&str>, sink: &mut Sink) -> Option<IpNet> {
    if let Ok(host) = text.value.parse::<IpAddr>() {
        return Some(host.into());
    }
    let Ok(network) = text.value.parse::<IpNet>() else {
        let title = format!("{} is not a network", quoted(text.value));
        let mistake = sink.error(text.span.clone(), title, "address/prefix-length is wanted");
        let host = text.value.split('/').next().unwrap_or_default();
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => mistake.help("an IPv4 prefix length is 0 to 32"),
            Ok(IpAddr::V6(_)) => mistake.help("an IPv6 prefix length is 0 to 128"),
            Err(_) => mistake.help("for example \"10.1.0.0/16\" or \"2001:db8:1::/48\""),
        };
        return None;
    };
    if network.addr() != network.network() {
        let title = format!("{} has bits set behind its prefix", quoted(text.value));
        sink.error(text.span.clone(), title, "a host of the network is named")
            .help(format!("did you mean \"{}\"?", network.trunc()));
        return None;
    }
    Some(network)
}

/// An identity: an address, `user@host`, `keyid:` and hexadecimal octets, a distinguished name,
/// else a host name.
pub(crate) fn identity(text: &At<&str>, sink: &mut Sink) -> Option<Identity> {
    let mut refuse = |label: &str, help: &str| {
        let title = format!("{} is not an identity", quoted(text.value));
        sink.error(text.span.clone(), title, label).help(help);
        None
    };
    let forms = "an address, a host name, user@host, a distinguished name, or keyid: and hexadecimal \
                 octets";
    let value = text.value;
    let begins_as_name = value.split_once('=').is_some_and(|(kind, _)| {
        !kind.is_empty() && kind.trim().chars().all(|c| c.is_ascii_alphabetic())
    });
    if begins_as_name && value.len() <= DISTINGUISHED_NAME_LEN_MAX {
        return match DistinguishedName::from_text(value) {
            Some(name) => Some(Identity::Dn(name)),
            None => refuse(
                "no distinguished name (RFC 4514)",
                "for example \"CN=gate.example, O=Example, C=DE\", the most particular part first",
            ),
        };
    }
    if value.is_empty() || value.len() > IDENTITY_LEN_MAX {
        return refuse("empty or too long", forms);
    }
    if let Ok(address) = value.parse() {
        return Some(Identity::Address(address));
    }
    if let Some(hex) = value.strip_prefix("keyid:") {
        return match octets(hex) {
            Some(octets) => Some(Identity::KeyId(octets)),
            None => refuse(
                "pairs of hexadecimal digits are wanted behind `keyid:`",
                "for example \"keyid:0a1b2c\"",
            ),
        };
    }
    if let Some((user, host)) = value.split_once('@') {
        if user.is_empty() {
            return refuse(
                "nothing stands before the @",
                &format!("a host name is written without @: \"{host}\""),
            );
        }
        let printable = user.chars().all(|c| c.is_ascii_graphic() && c != '@');
        return match host_name(host) {
            Some(host) if printable => Some(Identity::Mail(format!("{user}@{host}"))),
            _ => refuse("no mail address", forms),
        };
    }
    match host_name(value) {
        Some(name) => Some(Identity::Fqdn(name)),
        None => refuse("neither an address nor a host name", forms),
    }
}

/// A host name in ASCII (RFC 1123 §2.1, and underscores), without a trailing dot. One whose last
/// label is a number would be a mistyped address.
fn host_name(text: &str) -> Option<String> {
    const LABEL_LEN_MAX: usize = 63;
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let octets = label.bytes();
        let fits = (1..=LABEL_LEN_MAX).contains(&label.len());
        fits && octets
            .clone()
            .all(|o| o.is_ascii_alphanumeric() || o == b'-' || o == b'_')
    };
    let last = name.rsplit('.').next()?;
    let is_number = last.bytes().all(|o| o.is_ascii_digit());
    (name.split('.').all(is_label) && !is_number).then(|| name.to_owned())
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    if hex.is_empty() || !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    let nibble = |octet: u8| char::from(octet).to_digit(16);
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let value = nibble(pair[0])? * 16 + nibble(pair[1])?;
            u8::try_from(value).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity_of(text: &str) -> Option<Identity> {
        let mut sink = Sink::new("test", text);
        let at = At {
            value: text,
            span: 0..text.len(),
        };
        identity(&at, &mut sink)
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1 h"), Some(Duration::from_secs(3600)));
        for wrong in [
            "",
            "10",
            "ms",
            "-1s",
            "1.5s",
            "1w",
            "99999999999999999999s",
            "1s1s",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert_eq!(parse_duration("18446744073709551615d"), None);
    }

    #[test]
    fn a_duration_is_shown_in_its_largest_whole_unit() {
        for text in ["250ms", "10s", "90s", "1h", "7d", "1m"] {
            assert_eq!(
                parse_duration(text).map(shown_duration).as_deref(),
                Some(text)
            );
        }
        assert_eq!(shown_duration(Duration::ZERO), "0ms");
    }

    #[test]
    fn an_identity_is_known_by_its_form() {
        let address = "203.0.113.1".parse().ok().map(Identity::Address);
        assert_eq!(identity_of("203.0.113.1"), address);
        assert_eq!(
            identity_of("a@b.example"),
            Some(Identity::Mail("a@b.example".into()))
        );
        assert_eq!(
            identity_of("keyid:0aFf"),
            Some(Identity::KeyId(vec![0x0a, 0xff]))
        );
        assert_eq!(
            identity_of("hq.example."),
            Some(Identity::Fqdn("hq.example".into()))
        );
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for wrong in [
            "",
            "@hq",
            "203.0.113.999",
            "a b",
            "keyid:",
            "keyid:0",
            "keyid:zz",
            "keyid:é",
            "a@",
            "a..b",
            "ümlaut.example",
            "%any",
            "a@b@c",
        ] {
            assert_eq!(identity_of(wrong), None, "{wrong}");
        }
    }
}
