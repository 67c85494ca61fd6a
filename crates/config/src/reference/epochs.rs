//! Keys of a tunnel that say how epochs are proven, live and are replaced, and by which algorithms.

use super::{Key, Kind, Section, Unset};
use crate::algorithms::{
    self, ESN, PFS, POST_QUANTUM, default_ciphers, default_esp_ciphers, default_esp_groups,
    default_groups, default_prfs,
};
use crate::epoch::{PROOFS, SERVER_REKEYS};
use crate::ike_sa::NEVER;
use crate::keys::{
    BACK_OFF, BACK_OFF_MAX, EPOCH_DRAIN, EPOCH_LIFETIME, EPOCH_WAIT, IKE_LIFETIME,
    IKE_REAUTHENTICATE, PING_ATTEMPTS, PING_IDLE, PING_INTERVAL, REPLAY_WINDOW,
};

pub(super) const PING: Section = Section::new(
    "tunnel.NAME.ping",
    &[
        Key::new(
            "tunnel.NAME.ping.source",
            Kind::Address,
            Unset::Is("an address of this host inside `traffic.local`"),
            "Where pings come from: an address inside `traffic.local`. Not with `virtual.request`, \
             where it is the assigned address.",
        ),
        Key::new(
            "tunnel.NAME.ping.target",
            Kind::Address,
            Unset::Is("what the peer announces"),
            "What is pinged when the peer announces nothing: an address inside `traffic.remote`.",
        ),
        Key::new(
            "tunnel.NAME.ping.interval",
            Kind::Duration(PING_INTERVAL),
            Unset::Default,
            "How long to wait for a reply before the next ping. Longer than the path's round trip, \
             or a ping is sent in vain.",
        ),
        Key::new(
            "tunnel.NAME.ping.attempts",
            Kind::Number(PING_ATTEMPTS),
            Unset::Default,
            "Pings until the epoch counts as failed and the tunnel is rekeyed. All of them must fit \
             into an epoch's lifetime.",
        ),
        Key::new(
            "tunnel.NAME.ping.idle",
            Kind::Duration(PING_IDLE),
            Unset::Default,
            "How long after one proof of the open epoch it is pinged again.",
        ),
        Key::new(
            "tunnel.NAME.ping.proof",
            Kind::Word {
                words: &PROOFS.words.names(),
                default: Some(PROOFS.default_name()),
            },
            Unset::Default,
            "What a client takes for the proof of an epoch. `icmp`: the reply to a control ping. \
             `any-inbound`: whatever is authenticated and arrives on the epoch's own inbound SA, for \
             a peer behind which nothing answers pings. See below.",
        ),
    ],
);

pub(super) const EPOCH: Section = Section::new(
    "tunnel.NAME.epoch",
    &[
        Key::new(
            "tunnel.NAME.epoch.lifetime",
            Kind::Duration(EPOCH_LIFETIME),
            Unset::Default,
            "Age at which an epoch is replaced, less some jitter.",
        ),
        Key::new(
            "tunnel.NAME.epoch.wait",
            Kind::Flag {
                default: EPOCH_WAIT,
            },
            Unset::Default,
            "Outbound traffic moves to a new epoch only when something authenticated has arrived on \
             it.",
        )
        .of_server(),
        Key::new(
            "tunnel.NAME.epoch.drain",
            Kind::Duration(EPOCH_DRAIN),
            Unset::Default,
            "How long a replaced epoch still receives packets that are under way. Shorter than \
             `lifetime`.",
        ),
        Key::new(
            "tunnel.NAME.epoch.server-rekey",
            Kind::Word {
                words: &SERVER_REKEYS.words.names(),
                default: Some(SERVER_REKEYS.default_name()),
            },
            Unset::Default,
            "What the client does when its server rekeys an epoch. `ignore`: it refuses \
             (TEMPORARY_FAILURE, RFC 7296 §2.25) and rekeys by itself at once. Behind a NAT that \
             looks into IPsec the first packet of a new epoch must come from inside.",
        )
        .of_client(),
    ],
);

pub(super) const RECOVERY: Section = Section::new(
    "tunnel.NAME.recovery",
    &[
        Key::new(
            "tunnel.NAME.recovery.back-off",
            Kind::Duration(BACK_OFF),
            Unset::Default,
            "The wait after the first failure, give or take a quarter. It doubles with each further \
             one.",
        ),
        Key::new(
            "tunnel.NAME.recovery.back-off-max",
            Kind::Duration(BACK_OFF_MAX),
            Unset::Default,
            "The longest wait, before that jitter. Not shorter than `back-off`.",
        ),
    ],
);

pub(super) const IKE_SA: Section = Section::new(
    "tunnel.NAME.ike",
    &[
        Key::new(
            "tunnel.NAME.ike.lifetime",
            Kind::Duration(IKE_LIFETIME),
            Unset::Default,
            "Age at which an IKE SA is rekeyed (RFC 7296 §2.18): by a client between 80 and 100 \
             percent of it, by a server between 105 and 125, at random, so that tunnels which \
             started together do not rekey together. Epochs and traffic do not notice.",
        ),
        Key::new(
            "tunnel.NAME.ike.reauthenticate",
            Kind::DurationOr {
                bounds: IKE_REAUTHENTICATE,
                word: NEVER,
                is_default: true,
            },
            Unset::Default,
            "Time after which a new IKE SA is made beside the old one, so that both ends prove their \
             identities anew (RFC 7296 §2.8.3), with the same jitter. Traffic moves when an epoch of \
             the new one is proven, and then the old one is closed. Only an end that may start the \
             tunnel does this; a peer's AUTH_LIFETIME (RFC 4478) makes it do so sooner.",
        ),
    ],
);

pub(super) const ALGORITHMS: Section = Section::new("tunnel.NAME.algorithms", &[]);

pub(super) const ALGORITHMS_IKE: Section = Section::new(
    "tunnel.NAME.algorithms.ike",
    &[
        Key::new(
            "tunnel.NAME.algorithms.ike.cipher",
            Kind::Words {
                words: algorithms::cipher_names,
                default: Some(default_ciphers),
            },
            Unset::Default,
            "[Encryption with its integrity](#ciphers).",
        ),
        Key::new(
            "tunnel.NAME.algorithms.ike.prf",
            Kind::Words {
                words: algorithms::prf_names,
                default: Some(default_prfs),
            },
            Unset::Default,
            "Pseudorandom functions (RFC 4868).",
        ),
        Key::new(
            "tunnel.NAME.algorithms.ike.group",
            Kind::Words {
                words: algorithms::group_names,
                default: Some(default_groups),
            },
            Unset::Default,
            "Key exchange methods (RFC 8031, RFC 5903, RFC 3526). The first is tried first; another \
             one that the peer asks for costs one more round trip.",
        ),
        Key::new(
            "tunnel.NAME.algorithms.ike.post-quantum",
            Kind::Word {
                words: &POST_QUANTUM.words.names(),
                default: Some(POST_QUANTUM.default_name()),
            },
            Unset::Default,
            "ML-KEM-768 beside `group`, in an exchange of its own before IKE_AUTH (RFC 9242, RFC \
             9370): all keys depend on both, those of epochs too, so that traffic which is recorded \
             today stays secret when quantum computers come. `prefer`: offered first, and done \
             without where the peer has none. `require`: without it the IKE SA is refused. When the \
             IKE SA is rekeyed its keys come from those of the old one, without another ML-KEM \
             exchange.",
        ),
    ],
);

pub(super) const ALGORITHMS_ESP: Section = Section::new(
    "tunnel.NAME.algorithms.esp",
    &[
        Key::new(
            "tunnel.NAME.algorithms.esp.cipher",
            Kind::Words {
                words: algorithms::cipher_names,
                default: Some(default_esp_ciphers),
            },
            Unset::Default,
            "[Encryption with its integrity](#ciphers).",
        ),
        Key::new(
            "tunnel.NAME.algorithms.esp.group",
            Kind::Words {
                words: algorithms::group_names,
                default: Some(default_esp_groups),
            },
            Unset::Default,
            "Key exchange methods for each new epoch (perfect forward secrecy). Empty: new epochs \
             derive their keys from the IKE SA alone.",
        ),
        Key::new(
            "tunnel.NAME.algorithms.esp.pfs",
            Kind::Word {
                words: &PFS.words.names(),
                default: Some(PFS.default_name()),
            },
            Unset::Default,
            "`prefer`: a new epoch has a key exchange of its own unless the peer wants none. \
             `require`: without one it is refused.",
        ),
        Key::new(
            "tunnel.NAME.algorithms.esp.esn",
            Kind::Word {
                words: &ESN.words.names(),
                default: Some(ESN.default_name()),
            },
            Unset::Default,
            "Extended, 64-bit sequence numbers (RFC 4303 §2.2.1), without which an SA ends after \
             2^32 packets.",
        ),
        Key::new(
            "tunnel.NAME.algorithms.esp.replay-window",
            Kind::Number(REPLAY_WINDOW),
            Unset::Default,
            "Packets that may be late and are still received (RFC 4303 §3.4.3).",
        ),
    ],
);
