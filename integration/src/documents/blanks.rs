//! Compares output that a document shows with what a command printed, but for what differs from one
//! run to the next: numbers, times, SPIs.

use std::net::{IpAddr, SocketAddr};

/// Stands for any number of lines.
const ANY_LINES: &str = "…";

/// Digits that make a hexadecimal number of a word.
const HEX_LEAST: usize = 8;

/// Units of a time.
const TIMES: [&str; 7] = ["#us", "#µs", "#ms", "#s", "#m", "#h", "#d"];

/// Whether the lines `shown` are what the lines `got` look like.
pub fn fits(shown: &[&str], got: &[&str]) -> bool {
    let mut got = got;
    while let [rest @ .., last] = got
        && last.trim().is_empty()
    {
        got = rest;
    }
    match (shown, got) {
        ([], []) => true,
        ([first, rest @ ..], _) if first.trim() == ANY_LINES => {
            (0..=got.len()).any(|skipped| fits(rest, &got[skipped..]))
        }
        ([last], []) => last.trim().is_empty(),
        ([shown, more @ ..], [got, rest @ ..]) => {
            blanked(shown) == blanked(got) && fits(more, rest)
        }
        ([], [_, ..]) | ([_, _, ..], []) => false,
    }
}

/// The line with `#` for its numbers and one blank between its words; times in several units are one
/// number. Addresses stay, and words that begin with a letter.
pub fn blanked(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let end = word.trim_end_matches([',', ';', ':', ')', '.']).len();
        let (core, behind) = word.split_at(end);
        let begin = core.len() - core.trim_start_matches('(').len();
        let (before, core) = core.split_at(begin);
        let blank = blank(core);
        let continues = words.last().is_some_and(|last| last == "#time");
        if before.is_empty() && TIMES.contains(&blank.as_str()) {
            if continues {
                words.pop();
            }
            words.push(format!("#time{behind}"));
        } else {
            words.push(format!("{before}{blank}{behind}"));
        }
    }
    words.join(" ")
}

fn blank(word: &str) -> String {
    let host = word.split('/').next().unwrap_or_default();
    let is_address = host.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok();
    if is_address && !host.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return word.to_owned();
    }
    if let Some((name, value)) = word.split_once('=') {
        return format!("{name}={}", blank(value));
    }
    let digits = word.strip_prefix("0x").unwrap_or(word);
    let is_hex = digits.len() >= HEX_LEAST
        && digits.bytes().all(|octet| octet.is_ascii_hexdigit())
        && digits.bytes().any(|octet| octet.is_ascii_digit());
    if is_hex || word.starts_with("0x") {
        return "#".to_owned();
    }
    if !word.starts_with(|first: char| first.is_ascii_digit() || first == '-' || first == '+') {
        return word.to_owned();
    }
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
    let mut blank = String::new();
    for c in word.chars() {
        match (is_number(c), blank.ends_with('#')) {
            (true, true) => {}
            (true, false) => blank.push('#'),
            (false, _) => blank.push(c),
        }
    }
    blank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_and_spis_may_differ() {
        for (one, other) in [
            ("proven 12m 34s ago", "proven 3s ago"),
            ("in 0xc0ffee01, out 0xdeadbe01", "in 0x1, out 0xffffffff"),
            ("SPIs 0123456789abcdef", "SPIs fedcba9876543210"),
            (
                "7 of 8 answered,   last in 50.3 ms;",
                "1 of 1 answered, last in 1.2 ms;",
            ),
            (
                "icmp_seq=1 ttl=64 time=50.3 ms",
                "icmp_seq=2 ttl=63 time=1 ms",
            ),
            ("(epoch 3) 100%", "(epoch 4) 0%"),
        ] {
            assert_eq!(blanked(one), blanked(other));
        }
    }

    #[test]
    fn words_and_addresses_may_not() {
        for (one, other) in [
            ("held", "open"),
            ("10.1.0.1", "10.2.0.1"),
            ("10.1.0.0/16 to", "10.1.0.0/24 to"),
            ("203.0.113.1:4500", "203.0.113.1:500"),
            ("aes256gcm16", "aes128gcm16"),
            ("2001:db8::1", "2001:db8::2"),
            ("12 packets", "12 octets"),
            ("IPv4", "IPv6"),
        ] {
            assert_ne!(blanked(one), blanked(other));
        }
    }

    #[test]
    fn an_ellipsis_stands_for_any_lines() {
        assert!(fits(&["a", "…", "d"], &["a", "b", "c", "d", ""]));
        assert!(fits(&["…"], &[]));
        assert!(fits(&["a", "…"], &["a"]));
        assert!(!fits(&["a", "…", "d"], &["a", "b", "c"]));
        assert!(!fits(&["a"], &["a", "b"]));
        assert!(!fits(&["a", "b"], &["a"]));
        assert!(!fits(&[], &["a"]));
    }
}
