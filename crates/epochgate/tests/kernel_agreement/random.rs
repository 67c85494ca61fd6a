//! Random SAs and policies, the same for the same seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use epochgate_xfrm::{
    Aead, Cipher, Compression, Encap, Integrity, Key, Limit, Limits, Mark, Mode, Policy,
    PolicyAction, PolicyDirection, PolicyFlags, PortMatch, Prefix, Protection, Protocol,
    ReplayWindow, Reqid, Sa, SaExtraFlags, SaFlags, Selector, Socket, Spi, Template,
};

use crate::{ALGORITHMS_MIN, SEED};

/// Chance, from a seed (xorshift64*).
pub(crate) struct Chance(pub(crate) u64);

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
pub(crate) type Algorithm = (Protocol, fn(&mut Chance) -> Protection);

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
pub(crate) fn available(v4: bool) -> Vec<Algorithm> {
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

pub(crate) fn random_sa(
    chance: &mut Chance,
    number: u32,
    v4s: &[Algorithm],
    v6s: &[Algorithm],
) -> Sa {
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

pub(crate) fn random_policy(chance: &mut Chance, sas: &[Sa]) -> Policy {
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
