//! On a real kernel: `epochgate xfrm` and `ip xfrm` agree, attribute by attribute, about 1,000 random
//! SAs and 1,000 random policies, whichever of the two programs wrote them.
//!
//! The same entries are written into two namespaces: into one by `ip xfrm`, into the other by
//! crates/xfrm. In both, the JSON must be what was written, and the text of `ip xfrm` must be the
//! same, line by line.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::mpsc;

use common::{in_own_namespace, ip, ip_batch, json};
use epochgate_xfrm::{
    Aead, Cipher, Compression, Encap, Integrity, Key, Limit, Limits, Mark, Mode, Op, Policy,
    PolicyAction, PolicyDirection, PolicyFlags, PortMatch, Prefix, Protection, Protocol,
    ReplayWindow, Reqid, Sa, SaExtraFlags, SaFlags, Selector, Socket, Spi, Template,
};
use serde_json::{Value, json};

/// How many SAs, and how many policies.
const ENTRIES: u32 = 1_000;
/// Where chance begins. The same seed gives the same entries.
const SEED: u64 = 0x4547_2026;
/// Algorithms that the guest must have at least, or the test would show little.
const ALGORITHMS_MIN: usize = 12;

/// Chance, from a seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).expect("32 bits")
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(2).then(|| make(self))
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        let place = usize::try_from(self.below(choices.len() as u64)).expect("a place");
        choices.get(place).expect("a choice").clone()
    }

    fn bytes(&mut self, length: usize) -> Key {
        Key::new((0..length).map(|_| self.next().to_be_bytes()[1]).collect())
    }

    fn address(&mut self, v4: bool) -> IpAddr {
        match v4 {
            // Neither the unspecified address nor multicast.
            true => IpAddr::V4(Ipv4Addr::from(0x0a00_0001 | self.number() & 0x00ff_ffff)),
            false => IpAddr::V6(Ipv6Addr::from(
                0x2001_0db8 << 96 | u128::from(self.next()) << 8 | 1,
            )),
        }
    }

    fn prefix(&mut self, v4: bool) -> Prefix {
        let longest = if v4 { 32 } else { 128 };
        let length = u8::try_from(self.below(longest + 1)).expect("a length");
        Prefix::new(self.address(v4), length)
            .expect("not too long")
            .network()
    }

    fn port(&mut self) -> PortMatch {
        match self.one_in(2) {
            true => PortMatch::ANY,
            false => PortMatch::exactly(u16::try_from(self.below(65_535) + 1).expect("a port")),
        }
    }

    fn selector(&mut self, v4: bool) -> Selector {
        let selector = Selector::new(self.prefix(v4), self.prefix(v4)).expect("one family");
        match self.below(4) {
            0 => selector
                .with_protocol(17)
                .with_ports(self.port(), self.port()),
            1 => selector
                .with_protocol(6)
                .with_ports(self.port(), self.port()),
            2 => selector.with_protocol(47),
            _ => selector,
        }
    }

    fn mark(&mut self) -> Mark {
        let mask = self.pick(&[u32::MAX, 0xff, 0xff00, 0xffff_0000]);
        // `ip xfrm` does not write an output mark of 0.
        Mark {
            value: (self.number() | 0x0001_0101) & mask,
            mask,
        }
    }

    fn limit(&mut self) -> Limit {
        Limit {
            bytes: self.maybe(|chance| chance.next() >> 8),
            packets: self.maybe(|chance| chance.next() >> 8),
            // None may be reached while the test runs.
            seconds_since_added: self.maybe(|chance| 100_000 + chance.below(1 << 20)),
            seconds_since_used: self.maybe(|chance| 100_000 + chance.below(1 << 20)),
        }
    }

    fn if_id(&mut self) -> Option<NonZeroU32> {
        self.maybe(|chance| NonZeroU32::new(chance.number() | 1))
            .flatten()
    }
}

/// A protocol and algorithms, with keys of the right length.
type Algorithm = (Protocol, fn(&mut Chance) -> Protection);

fn aead(name: &str, key: Key, icv_bits: u32) -> Protection {
    Protection::Aead(Aead {
        name: name.into(),
        key,
        icv_bits,
    })
}

fn encryption(cipher: (&str, Key), integrity: (&str, Key, u32)) -> Protection {
    Protection::Encryption {
        cipher: Cipher {
            name: cipher.0.into(),
            key: cipher.1,
        },
        integrity: Some(authentication(integrity)),
    }
}

fn authentication(integrity: (&str, Key, u32)) -> Integrity {
    Integrity {
        name: integrity.0.into(),
        key: integrity.1,
        truncation_bits: Some(integrity.2),
    }
}

/// All that kernels have; the guest's are found by trying.
const CANDIDATES: [Algorithm; 22] = [
    (Protocol::Esp, |c| {
        aead("rfc4106(gcm(aes))", c.bytes(20), 128)
    }),
    (Protocol::Esp, |c| {
        aead("rfc4106(gcm(aes))", c.bytes(36), 128)
    }),
    (Protocol::Esp, |c| {
        aead("rfc4106(gcm(aes))", c.bytes(28), 96)
    }),
    (Protocol::Esp, |c| {
        aead("rfc4309(ccm(aes))", c.bytes(19), 64)
    }),
    (Protocol::Esp, |c| {
        aead("rfc4309(ccm(aes))", c.bytes(35), 128)
    }),
    (Protocol::Esp, |c| {
        aead("rfc4543(gcm(aes))", c.bytes(20), 128)
    }),
    (Protocol::Esp, |c| {
        aead("rfc7539esp(chacha20,poly1305)", c.bytes(36), 128)
    }),
    (Protocol::Esp, |c| {
        encryption(
            ("cbc(aes)", c.bytes(32)),
            ("hmac(sha256)", c.bytes(32), 128),
        )
    }),
    (Protocol::Esp, |c| {
        encryption(("cbc(aes)", c.bytes(16)), ("hmac(sha256)", c.bytes(32), 96))
    }),
    (Protocol::Esp, |c| {
        encryption(
            ("cbc(aes)", c.bytes(24)),
            ("hmac(sha384)", c.bytes(48), 192),
        )
    }),
    (Protocol::Esp, |c| {
        encryption(
            ("cbc(aes)", c.bytes(32)),
            ("hmac(sha512)", c.bytes(64), 256),
        )
    }),
    (Protocol::Esp, |c| {
        encryption(
            ("rfc3686(ctr(aes))", c.bytes(20)),
            ("hmac(sha1)", c.bytes(20), 96),
        )
    }),
    (Protocol::Esp, |c| {
        encryption(
            ("cbc(des3_ede)", c.bytes(24)),
            ("hmac(md5)", c.bytes(16), 96),
        )
    }),
    (Protocol::Esp, |c| {
        encryption(
            ("cbc(camellia)", c.bytes(32)),
            ("hmac(sha256)", c.bytes(32), 128),
        )
    }),
    (Protocol::Esp, |c| {
        encryption(
            ("ecb(cipher_null)", Key::new(Vec::new())),
            ("hmac(sha1)", c.bytes(20), 96),
        )
    }),
    (Protocol::Esp, |c| {
        encryption(("cbc(aes)", c.bytes(16)), ("xcbc(aes)", c.bytes(16), 96))
    }),
    (Protocol::Esp, |c| {
        encryption(("cbc(aes)", c.bytes(16)), ("cmac(aes)", c.bytes(16), 96))
    }),
    (Protocol::Esp, |c| {
        encryption(("cbc(aes)", c.bytes(16)), ("hmac(md5)", c.bytes(16), 96))
    }),
    (Protocol::Ah, |c| {
        Protection::Integrity(authentication(("hmac(sha1)", c.bytes(20), 96)))
    }),
    (Protocol::Ah, |c| {
        Protection::Integrity(authentication(("hmac(sha256)", c.bytes(32), 128)))
    }),
    (Protocol::Ah, |c| {
        Protection::Integrity(authentication(("hmac(md5)", c.bytes(16), 96)))
    }),
    (Protocol::Comp, |_| {
        Protection::Compression(Compression {
            name: "deflate".into(),
        })
    }),
];

/// The algorithms that this kernel takes for SAs of a family.
fn available(v4: bool) -> Vec<Algorithm> {
    let mut socket = Socket::open().expect("a netlink socket");
    let mut chance = Chance(SEED);
    let is_taken = |(protocol, make): &Algorithm| {
        let mut sa = Sa::new(chance.address(v4), chance.address(v4), *protocol);
        sa.spi = Spi::new(0x1000);
        sa.protection = make(&mut chance);
        let id = sa.id().expect("an SPI");
        let is_taken = socket.add_sa(&sa).is_ok();
        if is_taken {
            socket.delete_sa(id).expect("it is there");
        }
        is_taken
    };
    let algorithms: Vec<Algorithm> = CANDIDATES.into_iter().filter(is_taken).collect();
    assert!(algorithms.len() >= ALGORITHMS_MIN, "{}", algorithms.len());
    let family = if v4 { "IPv4" } else { "IPv6" };
    println!(
        "{family}: {} of {} algorithms",
        algorithms.len(),
        CANDIDATES.len()
    );
    algorithms
}

fn random_sa(chance: &mut Chance, number: u32, v4s: &[Algorithm], v6s: &[Algorithm]) -> Sa {
    let v4 = chance.one_in(2);
    let (protocol, make) = chance.pick(if v4 { v4s } else { v6s });
    let mut sa = Sa::new(chance.address(v4), chance.address(v4), protocol);
    // IPComp's SPIs have 16 bits.
    sa.spi = Spi::new(0x1_000 + number);
    sa.reqid = Reqid(chance.number());
    sa.protection = make(chance);
    sa.mode = match protocol {
        // In tunnel mode the kernel makes an SA of IP-in-IP beside it.
        Protocol::Comp => Mode::Transport,
        _ => chance.pick(&[Mode::Tunnel, Mode::Tunnel, Mode::Transport]),
    };
    if protocol == Protocol::Esp && chance.one_in(3) {
        let port = |chance: &mut Chance| u16::try_from(chance.below(65_535) + 1).expect("a port");
        sa.encap = Some(Encap::udp(port(chance), port(chance)));
    }
    if protocol != Protocol::Comp {
        sa.replay_window = chance.pick(&[
            ReplayWindow::packets(0),
            ReplayWindow::packets(32),
            ReplayWindow::packets(128),
            ReplayWindow::extended(32),
            ReplayWindow::extended(1024),
        ]);
    }
    sa.limits = Limits {
        soft: chance.limit(),
        hard: chance.limit(),
    };
    sa.mark = chance.maybe(Chance::mark);
    sa.output_mark = chance.maybe(Chance::mark);
    sa.if_id = chance.if_id();
    for flag in [
        SaFlags::NO_ECN,
        SaFlags::DECAP_DSCP,
        SaFlags::NO_PMTU_DISCOVERY,
        SaFlags::ICMP,
        SaFlags::AF_UNSPEC,
        SaFlags::ALIGN4,
    ] {
        sa.flags.set(flag, chance.one_in(4));
    }
    if sa.mode == Mode::Transport {
        // The kernel takes it for tunnels alone.
        sa.flags.remove(SaFlags::AF_UNSPEC);
    }
    sa.extra_flags
        .set(SaExtraFlags::DONT_ENCAP_DSCP, chance.one_in(4));
    if !sa.flags.contains(SaFlags::AF_UNSPEC) {
        sa.selector = chance.maybe(|chance| chance.selector(v4));
    }
    sa
}

fn random_policy(chance: &mut Chance, sas: &[Sa]) -> Policy {
    let v4 = chance.one_in(2);
    let direction = chance.pick(&[
        PolicyDirection::In,
        PolicyDirection::Out,
        PolicyDirection::Forward,
    ]);
    let mut policy = Policy::allow(direction, chance.selector(v4), chance.number());
    if chance.one_in(5) {
        policy.action = PolicyAction::Block;
    } else {
        for _ in 0..chance.below(4) {
            let sa = chance.pick(sas);
            policy.templates.push(Template {
                spi: if chance.one_in(3) { sa.spi } else { None },
                protocol: sa.protocol,
                // The kernel takes no optional tunnel on the way out.
                optional: direction != PolicyDirection::Out && chance.one_in(4),
                ..Template::esp_tunnel(sa.source, sa.destination, sa.reqid)
            });
        }
    }
    policy.mark = chance.maybe(Chance::mark);
    policy.if_id = chance.if_id();
    policy.limits = Limits {
        soft: chance.limit(),
        hard: chance.limit(),
    };
    policy.flags.set(PolicyFlags::LOCAL_OK, chance.one_in(4));
    policy.flags.set(PolicyFlags::ICMP, chance.one_in(4));
    policy
}

/// As `ip xfrm` wants it.
fn selector_words(selector: &Selector) -> String {
    let mut line = format!("src {} dst {}", selector.source(), selector.destination());
    if selector.protocol != 0 {
        let _ = write!(line, " proto {}", selector.protocol);
    }
    for (name, port) in [
        ("sport", selector.source_port),
        ("dport", selector.destination_port),
    ] {
        if port.mask != 0 {
            let _ = write!(line, " {name} {}", port.port);
        }
    }
    line
}

fn limit_words(limits: &Limits) -> String {
    let mut line = String::new();
    for (name, limit) in [("soft", &limits.soft), ("hard", &limits.hard)] {
        for (unit, number) in [
            ("time", limit.seconds_since_added),
            ("time-use", limit.seconds_since_used),
            ("byte", limit.bytes),
            ("packet", limit.packets),
        ] {
            if let Some(number) = number {
                let _ = write!(line, " limit {unit}-{name} {number}");
            }
        }
    }
    line
}

fn hex(key: &Key) -> String {
    match key.expose() {
        [] => "\"\"".to_owned(),
        bytes => bytes
            .iter()
            .fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

fn sa_line(sa: &Sa) -> String {
    let mut line = format!(
        "xfrm state add src {} dst {} proto {} spi {} reqid {} mode {}",
        sa.source,
        sa.destination,
        sa.protocol,
        sa.spi.expect("an SPI"),
        sa.reqid,
        sa.mode
    );
    let auth = |i: &Integrity| {
        let bits = i.truncation_bits.expect("said");
        format!(" auth-trunc {} {} {bits}", i.name, hex(&i.key))
    };
    match &sa.protection {
        Protection::Larval => {}
        Protection::Aead(a) => {
            let _ = write!(line, " aead {} {} {}", a.name, hex(&a.key), a.icv_bits);
        }
        Protection::Encryption { cipher, integrity } => {
            let _ = write!(line, " enc {} {}", cipher.name, hex(&cipher.key));
            line.push_str(&integrity.as_ref().map(auth).unwrap_or_default());
        }
        Protection::Integrity(integrity) => line.push_str(&auth(integrity)),
        Protection::Compression(compression) => {
            let _ = write!(line, " comp {}", compression.name);
        }
    }
    if let Some(encap) = sa.encap {
        let (from, to) = (encap.source_port, encap.destination_port);
        let nowhere = if sa.source.is_ipv4() { "0.0.0.0" } else { "::" };
        let _ = write!(line, " encap espinudp {from} {to} {nowhere}");
    }
    let _ = write!(line, " replay-window {}", sa.replay_window.packets);
    let flags = [
        (sa.flags.contains(SaFlags::NO_ECN), "noecn"),
        (sa.flags.contains(SaFlags::DECAP_DSCP), "decap-dscp"),
        (sa.flags.contains(SaFlags::NO_PMTU_DISCOVERY), "nopmtudisc"),
        (sa.flags.contains(SaFlags::ICMP), "icmp"),
        (sa.flags.contains(SaFlags::AF_UNSPEC), "af-unspec"),
        (sa.flags.contains(SaFlags::ALIGN4), "align4"),
        (sa.replay_window.extended, "esn"),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name)
        .collect();
    if !flags.is_empty() {
        let _ = write!(line, " flag {}", flags.join(" "));
    }
    if sa.extra_flags.contains(SaExtraFlags::DONT_ENCAP_DSCP) {
        line.push_str(" extra-flag dont-encap-dscp");
    }
    for (name, mark) in [("mark", sa.mark), ("output-mark", sa.output_mark)] {
        if let Some(Mark { value, mask }) = mark {
            let _ = write!(line, " {name} {value:#x} mask {mask:#x}");
        }
    }
    if let Some(if_id) = sa.if_id {
        let _ = write!(line, " if_id {if_id}");
    }
    if let Some(selector) = &sa.selector {
        let _ = write!(line, " sel {}", selector_words(selector));
    }
    line + &limit_words(&sa.limits) + "\n"
}

fn policy_line(policy: &Policy) -> String {
    let mut line = format!(
        "xfrm policy add {} dir {} priority {}",
        selector_words(&policy.selector),
        policy.direction,
        policy.priority
    );
    if policy.action == PolicyAction::Block {
        line.push_str(" action block");
    }
    let flags = [
        (policy.flags.contains(PolicyFlags::LOCAL_OK), "localok"),
        (policy.flags.contains(PolicyFlags::ICMP), "icmp"),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name)
        .collect();
    if !flags.is_empty() {
        let _ = write!(line, " flag {}", flags.join(" "));
    }
    if let Some(Mark { value, mask }) = policy.mark {
        let _ = write!(line, " mark {value:#x} mask {mask:#x}");
    }
    if let Some(if_id) = policy.if_id {
        let _ = write!(line, " if_id {if_id}");
    }
    line.push_str(&limit_words(&policy.limits));
    for template in &policy.templates {
        let spi = template
            .spi
            .map(|spi| format!(" spi {spi}"))
            .unwrap_or_default();
        let level = if template.optional { "use" } else { "required" };
        let _ = write!(
            line,
            " tmpl src {} dst {} proto {}{spi} reqid {} mode {} level {level}",
            template.source, template.destination, template.protocol, template.reqid, template.mode
        );
    }
    line + "\n"
}

fn mark_json(mark: Option<Mark>) -> Value {
    mark.map_or(Value::Null, |Mark { value, mask }| {
        json!({"value": format!("{value:#x}"), "mask": format!("{mask:#x}")})
    })
}

fn selector_json(selector: &Selector) -> Value {
    let port = |port: PortMatch| match port.mask {
        0 => Value::Null,
        mask => json!({"port": port.port, "mask": format!("{mask:#x}")}),
    };
    json!({
        "source": selector.source().to_string(),
        "destination": selector.destination().to_string(),
        "protocol": selector.protocol,
        "source_port": port(selector.source_port),
        "destination_port": port(selector.destination_port),
        "interface_index": 0,
        "user": 0,
    })
}

/// Every limit that was set is there; nothing is used up but a little time.
fn check_limits(limits: &Limits, shown: &Value, what: &str) {
    for (name, limit) in [("soft", &limits.soft), ("hard", &limits.hard)] {
        let shown = &shown[name];
        for (unit, number) in [
            ("bytes", limit.bytes),
            ("packets", limit.packets),
            ("seconds_since_added", limit.seconds_since_added),
            ("seconds_since_used", limit.seconds_since_used),
        ] {
            assert_eq!(shown[unit], json!(number), "{name} {unit} of {what}");
            let left = shown["left"][unit].as_u64();
            match number {
                None => assert_eq!(left, None, "{what}"),
                Some(number) => {
                    let left = left.expect("what is left");
                    assert!(
                        left <= number && left + 3600 > number,
                        "{left} {number} {what}"
                    );
                }
            }
        }
    }
}

fn algorithm_json(name: &str, key: Option<&Key>, icv_bits: Option<u32>) -> Value {
    let shown = |key: &Key| format!("0x{}", hex(key).replace("\"\"", "").replace("0x", ""));
    json!({
        "name": name,
        "key_bits": key.map_or(0, Key::bits),
        "icv_bits": icv_bits,
        "key": key.map(shown),
    })
}

fn check_protection(protection: &Protection, shown: &Value, what: &str) {
    let of_integrity = |i: &Integrity| algorithm_json(&i.name, Some(&i.key), i.truncation_bits);
    let mut wanted = json!({
        "aead": null, "encryption": null, "integrity": null, "compression": null,
    });
    match protection {
        Protection::Larval => {}
        Protection::Aead(a) => {
            wanted["aead"] = algorithm_json(&a.name, Some(&a.key), Some(a.icv_bits));
        }
        Protection::Encryption { cipher, integrity } => {
            wanted["encryption"] = algorithm_json(&cipher.name, Some(&cipher.key), None);
            wanted["integrity"] = integrity.as_ref().map_or(Value::Null, of_integrity);
        }
        Protection::Integrity(integrity) => wanted["integrity"] = of_integrity(integrity),
        Protection::Compression(compression) => {
            wanted["compression"] = algorithm_json(&compression.name, None, None);
        }
    }
    for part in ["aead", "encryption", "integrity", "compression"] {
        assert_eq!(shown[part], wanted[part], "{part} of {what}");
    }
}

fn check_sa(sa: &Sa, shown: &Value) {
    let what = sa_line(sa);
    let same = |name: &str, wanted: Value| assert_eq!(shown[name], wanted, "{name} of {what}");
    same("source", json!(sa.source));
    same("destination", json!(sa.destination));
    same("protocol", json!(sa.protocol.to_string()));
    same("spi", json!(sa.spi.map(|spi| spi.to_string())));
    same("reqid", json!(sa.reqid.0));
    same("mode", json!(sa.mode.to_string()));
    same("larval", json!(false));
    check_protection(&sa.protection, shown, &what);
    let encap = sa.encap.map(|encap| {
        json!({
            "kind": "udp",
            "source_port": encap.source_port,
            "destination_port": encap.destination_port,
            "original_address": null,
        })
    });
    same("encapsulation", json!(encap));
    same("mark", mark_json(sa.mark));
    same("output_mark", mark_json(sa.output_mark));
    same("if_id", json!(sa.if_id.map(NonZeroU32::get)));
    assert_eq!(
        shown["replay"]["window"], sa.replay_window.packets,
        "{what}"
    );
    assert_eq!(
        shown["replay"]["extended"], sa.replay_window.extended,
        "{what}"
    );
    let everything = match sa.source {
        _ if sa.flags.contains(SaFlags::AF_UNSPEC) => None,
        IpAddr::V4(_) => Some(Selector::ANY_V4),
        IpAddr::V6(_) => Some(Selector::ANY_V6),
    };
    let selector = sa.selector.or(everything);
    same(
        "selector",
        selector.as_ref().map_or(Value::Null, selector_json),
    );
    check_limits(&sa.limits, &shown["limits"], &what);
    let mut flags = Vec::new();
    for (flag, name) in [
        (SaFlags::NO_ECN, "noecn"),
        (SaFlags::DECAP_DSCP, "decap-dscp"),
        (SaFlags::NO_PMTU_DISCOVERY, "nopmtudisc"),
        (SaFlags::ICMP, "icmp"),
        (SaFlags::AF_UNSPEC, "af-unspec"),
        (SaFlags::ALIGN4, "align4"),
    ] {
        if sa.flags.contains(flag) {
            flags.push(name);
        }
    }
    if sa.extra_flags.contains(SaExtraFlags::DONT_ENCAP_DSCP) {
        flags.push("dont-encap-dscp");
    }
    same("flags", json!(flags));
    same("attributes", json!([]));
}

fn check_policy(policy: &Policy, shown: &Value) {
    let what = policy_line(policy);
    let same = |name: &str, wanted: Value| assert_eq!(shown[name], wanted, "{name} of {what}");
    same("direction", json!(policy.direction.to_string()));
    same("selector", selector_json(&policy.selector));
    let (action, effect) = match (policy.action, policy.templates.is_empty()) {
        (PolicyAction::Block, _) => ("block", "block"),
        (PolicyAction::Allow, true) => ("allow", "clear"),
        (PolicyAction::Allow, false) => ("allow", "protect"),
    };
    same("action", json!(action));
    same("effect", json!(effect));
    same("priority", json!(policy.priority));
    same("mark", mark_json(policy.mark));
    same("if_id", json!(policy.if_id.map(NonZeroU32::get)));
    same("sub_policy", json!(false));
    check_limits(&policy.limits, &shown["limits"], &what);
    let mut flags = Vec::new();
    if policy.flags.contains(PolicyFlags::LOCAL_OK) {
        flags.push("localok");
    }
    if policy.flags.contains(PolicyFlags::ICMP) {
        flags.push("icmp");
    }
    same("flags", json!(flags));
    let templates = shown["templates"].as_array().expect("templates");
    assert_eq!(templates.len(), policy.templates.len(), "{what}");
    for (template, shown) in policy.templates.iter().zip(templates) {
        let same = |name: &str, wanted: Value| {
            assert_eq!(shown[name], wanted, "{name} of a template of {what}");
        };
        same("source", json!(template.source));
        same("destination", json!(template.destination));
        same("protocol", json!(template.protocol.to_string()));
        same("mode", json!("tunnel"));
        same("spi", json!(template.spi.map(|spi| spi.to_string())));
        same("reqid", json!(template.reqid.0));
        same("optional", json!(template.optional));
        let all = format!("{:#x}", u32::MAX);
        let masks = json!({"encryption": all, "integrity": all, "compression": all});
        same("algorithms", masks);
    }
}

/// What one namespace showed.
struct Shown {
    states: Vec<Value>,
    policies: Vec<Value>,
    ip_states: BTreeMap<String, Vec<String>>,
    ip_policies: BTreeMap<String, Vec<String>>,
}

/// Both programs' lists of the namespace that this thread is in.
fn show() -> Shown {
    let entries = |list: Value, name: &str| {
        assert_eq!(list["schema"], 1);
        assert_eq!(list["unreadable"], 0);
        assert_eq!(list["changed_while_read"], false);
        list[name].as_array().expect("a list").clone()
    };
    Shown {
        states: entries(json("xfrm state --json --show-keys"), "states"),
        policies: entries(json("xfrm policy --json"), "policies"),
        ip_states: blocks(&ip("-s xfrm state"), 2),
        ip_policies: blocks(&ip("-s xfrm policy"), 2),
    }
}

/// The blocks of `ip xfrm`, each under its first lines, without what time and the kernel's own
/// numbers change.
fn blocks(text: &str, key_lines: usize) -> BTreeMap<String, Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            all.push(Vec::new());
        }
        let is_time = line.trim_start().starts_with("add ");
        let words: Vec<&str> = line.split(' ').collect();
        let mut kept = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "index" {
                words.next();
            } else {
                kept.push(word);
            }
        }
        if !is_time && let Some(block) = all.last_mut() {
            block.push(kept.join(" "));
        }
    }
    let count = all.len();
    let keyed = all.into_iter().map(|block| {
        let key = block
            .iter()
            .take(key_lines)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        // Policies of one selector differ in what follows.
        (format!("{key}\n{}", block.join("\n")), block)
    });
    let keyed: BTreeMap<String, Vec<String>> = keyed.collect();
    assert_eq!(keyed.len(), count, "two blocks are the same");
    keyed
}

/// Without what time and the kernel's own numbers change.
fn timeless(list: &[Value]) -> Vec<Value> {
    let mut list = list.to_vec();
    for entry in &mut list {
        entry["index"] = Value::Null;
        entry["usage"]["added"] = Value::Null;
        entry["usage"]["age_seconds"] = Value::Null;
        for limit in ["soft", "hard"] {
            entry["limits"][limit]["left"] = Value::Null;
        }
        // Which of several that fit comes first is the kernel's.
        if let Some(partners) = entry["used_by"]["policies"].as_array_mut() {
            for partner in partners {
                partner["index"] = Value::Null;
            }
        }
    }
    list
}

/// Entries that the kernel tells apart: selector, direction, mark and if_id are a policy's identity.
fn distinct(policies: Vec<Policy>) -> Vec<Policy> {
    let mut seen = std::collections::HashSet::new();
    policies
        .into_iter()
        .filter(|policy| seen.insert(policy.id()))
        .collect()
}

#[test]
fn ip_and_epochgate_agree_on_random_states_and_policies() {
    let (sender, receiver) = mpsc::channel();
    in_own_namespace(move || {
        let mut chance = Chance(SEED);
        let (v4s, v6s) = (available(true), available(false));
        let sas: Vec<Sa> = (0..ENTRIES)
            .map(|number| random_sa(&mut chance, number, &v4s, &v6s))
            .collect();
        let policies = distinct(
            (0..ENTRIES)
                .map(|_| random_policy(&mut chance, &sas))
                .collect(),
        );
        assert_eq!(
            policies.len(),
            ENTRIES as usize,
            "chance made a policy twice"
        );
        ip_batch(&sas.iter().map(sa_line).collect::<String>());
        ip_batch(&policies.iter().map(policy_line).collect::<String>());
        sender
            .send((sas, policies, show()))
            .expect("the test waits");
    });
    let (sas, policies, by_ip) = receiver.recv().expect("the namespace showed something");
    // The kernel lists the newest SA first, and so policies.
    assert_eq!(by_ip.states.len(), sas.len());
    for (sa, shown) in sas.iter().rev().zip(&by_ip.states) {
        check_sa(sa, shown);
    }
    assert_eq!(by_ip.policies.len(), policies.len());
    for (policy, shown) in policies.iter().rev().zip(&by_ip.policies) {
        check_policy(policy, shown);
    }
    let (sender, receiver) = mpsc::channel();
    in_own_namespace(move || {
        let mut socket = Socket::open().expect("a netlink socket");
        let sas: Vec<Op<'_>> = sas.iter().map(Op::AddSa).collect();
        let policies: Vec<Op<'_>> = policies.iter().map(Op::AddPolicy).collect();
        for result in socket
            .batch(&sas)
            .into_iter()
            .chain(socket.batch(&policies))
        {
            result.expect("the kernel takes it");
        }
        sender.send(show()).expect("the test waits");
    });
    let by_us = receiver.recv().expect("the namespace showed something");
    for (ours, theirs) in timeless(&by_us.states).iter().zip(timeless(&by_ip.states)) {
        assert_eq!(*ours, theirs);
    }
    for (ours, theirs) in timeless(&by_us.policies)
        .iter()
        .zip(timeless(&by_ip.policies))
    {
        assert_eq!(*ours, theirs);
    }
    assert_eq!(by_us.ip_states.len(), ENTRIES as usize);
    assert_eq!(by_us.ip_policies.len(), ENTRIES as usize);
    for (ours, theirs) in [
        (&by_us.ip_states, &by_ip.ip_states),
        (&by_us.ip_policies, &by_ip.ip_policies),
    ] {
        for (key, block) in ours {
            let theirs = theirs
                .get(key)
                .unwrap_or_else(|| panic!("ip does not have\n{key}"));
            assert_eq!(block, theirs);
        }
        assert_eq!(ours.len(), theirs.len());
    }
}
