//! Keys of a tunnel that say who its ends are, what it carries, and the way between them.

use super::{Key, Kind, Section, Unset};
use crate::addressing::FAMILIES;
use crate::auth::{SIGNATURES, STALE_LISTS};
use crate::keys::{
    AUTHORITY_FILES_MAX, DEFAULT_VIRTUAL_INTERFACE, FRAGMENT_SIZE, FRAGMENTATION,
    INTERFACE_LEN_MAX, INTERFACE_MTU, INTERFACE_NAME_LEN_MAX, MOBIKE, NAT_KEEPALIVE,
    PASSWORD_LEN_MAX, PPK_ID_LEN_MAX, PPK_LEN_MIN, PPK_REQUIRED, PSK_LEN_MAX, PSK_LEN_MIN,
    USER_LEN_MAX,
};
use crate::path::OFF;
use crate::tunnel::{NAT_TRAVERSALS, ON_STOPS, ROLES, STARTS};

pub(super) const TUNNELS: Section = Section::new("tunnel", &[]);

pub(super) const TUNNEL: Section = Section::new(
    "tunnel.NAME",
    &[
        Key::new(
            "tunnel.NAME.role",
            Kind::Word {
                words: &ROLES.names(),
                default: None,
            },
            Unset::Required,
            "The client proves each epoch with control pings; it is usually the end behind a NAT. \
             The server waits for the client's ping. One end is the client and the other the server.",
        ),
        Key::new(
            "tunnel.NAME.policy",
            Kind::Text {
                octets_max: None,
                default: None,
            },
            Unset::Required,
            "The [policy template](#policy-templates).",
        ),
        Key::new(
            "tunnel.NAME.start",
            Kind::Word {
                words: &STARTS.names(),
                default: None,
            },
            Unset::Is("client: `on-demand` (`always` with `virtual.request`), server: `listen`"),
            "`on-demand`: at the first packet, which the kernel holds. `always`: at once, and again \
             whenever the tunnel is down. `listen`: never by this end. With `remote.address` `%any` \
             only `listen` is possible.",
        ),
        Key::new(
            "tunnel.NAME.nat-t",
            Kind::Word {
                words: &NAT_TRAVERSALS.words.names(),
                default: Some(NAT_TRAVERSALS.default_name()),
            },
            Unset::Default,
            "`auto`: ESP goes inside UDP port 4500 where a NAT is found (RFC 7296 §2.23). `off`: \
             plain ESP always, and NATs are not looked for. A server whose clients may come from \
             anywhere answers one that looks for NATs if any of its tunnels allows it.",
        ),
        Key::new(
            "tunnel.NAME.on-stop",
            Kind::Word {
                words: &ON_STOPS.words.names(),
                default: Some(ON_STOPS.default_name()),
            },
            Unset::Default,
            "What happens to the tunnel's traffic when the daemon stops. `block`: its policies and \
             routes stay in the kernel and nothing leaves. `remove`: they go, and traffic leaves \
             **unprotected**.",
        ),
    ],
);

pub(super) const LOCAL: Section = Section::new(
    "tunnel.NAME.local",
    &[
        Key::new(
            "tunnel.NAME.local.address",
            Kind::AddressOrAny,
            Unset::Default,
            "This end's outer address. `%any`: the one that the route to the peer leaves from. Both \
             ends must be of one IP version.",
        ),
        Key::new(
            "tunnel.NAME.local.id",
            Kind::Identity,
            Unset::Is("the certificate's subject, else the address"),
            "What this end proves to be. Required where `address` is `%any` and there is no \
             certificate.",
        ),
        Key::new(
            "tunnel.NAME.local.psk-file",
            Kind::File {
                octets: Some((PSK_LEN_MIN, PSK_LEN_MAX)),
            },
            Unset::Nothing,
            "A file with the pre-shared key, taken literally but for one line end at the end. Other \
             users must have no rights to it (`chmod 600`), nor its group the right to write. A \
             relative path is looked for beside the configuration file. A good key: \
             `(umask 077; openssl rand -base64 32 > branch.psk)`.",
        ),
        Key::new(
            "tunnel.NAME.local.cert",
            Kind::File { octets: None },
            Unset::Nothing,
            "A PEM file with this end's certificate, and behind it those of the authorities between \
             it and the peer's `ca`. It must name `id`.",
        ),
        Key::new(
            "tunnel.NAME.local.key",
            Kind::File { octets: None },
            Unset::Nothing,
            "A PEM file with the certificate's private key, not encrypted: RSA of 2048 to 4096 bits, \
             ECDSA on P-256 or P-384, or Ed25519. Its rights must be those of a `psk-file`. Required \
             with `cert`.",
        ),
        Key::new(
            "tunnel.NAME.local.signature",
            Kind::Word {
                words: &SIGNATURES.words.names(),
                default: Some(SIGNATURES.default_name()),
            },
            Unset::Default,
            "How an RSA key signs for a peer that speaks RFC 7427. A peer that does not gets \
             RSASSA-PKCS1-v1_5 with SHA2-256. SHA-1 is neither made nor accepted.",
        ),
        Key::new(
            "tunnel.NAME.local.eap-user",
            Kind::Text {
                octets_max: Some(USER_LEN_MAX),
                default: None,
            },
            Unset::Nothing,
            "Instead of a certificate or a secret: this end, which starts, proves itself by \
             EAP-MSCHAPv2 as this user (RFC 7296 §2.16), after the peer has by its certificate.",
        ),
        Key::new(
            "tunnel.NAME.local.eap-password-file",
            Kind::File {
                octets: Some((1, PASSWORD_LEN_MAX)),
            },
            Unset::Nothing,
            "A file with the user's password in UTF-8, read as a `psk-file` is. Required with \
             `eap-user`.",
        ),
    ],
);

pub(super) const REMOTE: Section = Section::new(
    "tunnel.NAME.remote",
    &[
        Key::new(
            "tunnel.NAME.remote.address",
            Kind::AddressOrAny,
            Unset::Default,
            "The peer's outer address. A client must know it; a server may say `%any`: whoever \
             proves `id`.",
        ),
        Key::new(
            "tunnel.NAME.remote.id",
            Kind::Identity,
            Unset::Is("the address"),
            "What the peer must prove to be. Required where `address` is `%any`.",
        ),
        Key::new(
            "tunnel.NAME.remote.ca",
            Kind::List {
                of: "paths",
                most: Some(AUTHORITY_FILES_MAX),
            },
            Unset::Nothing,
            "PEM files with the certificates of authorities. The peer must prove its `id` by a \
             signature, with a certificate that one of them issued.",
        ),
        Key::new(
            "tunnel.NAME.remote.crl",
            Kind::List {
                of: "paths",
                most: Some(AUTHORITY_FILES_MAX),
            },
            Unset::Nothing,
            "Files with revocation lists (RFC 5280), PEM or DER. Where there is one, each authority \
             on the peer's path but the root needs one that speaks for it; a revoked certificate is \
             refused.",
        ),
        Key::new(
            "tunnel.NAME.remote.stale-crl",
            Kind::Word {
                words: &STALE_LISTS.words.names(),
                default: Some(STALE_LISTS.default_name()),
            },
            Unset::Default,
            "Whether a revocation list past its next update still counts. `refuse`: nobody whom it \
             speaks for is believed, and the log says so.",
        ),
        Key::new(
            "tunnel.NAME.remote.eap-users-file",
            Kind::File { octets: None },
            Unset::Nothing,
            "Instead of `ca`: the peer, which starts, must prove by EAP-MSCHAPv2 to be one of these \
             users, {{USERS_MAX}} at most. A line `name:password` for each; empty lines and those \
             that begin with `#` are skipped. Its rights must be those of a `psk-file`. This end \
             needs a certificate. It asks for the user by an EAP Identity request (RFC 3748 §5.1), \
             so that the user need not be the peer's `id`: in strongSwan, `eap_id`.",
        ),
    ],
);

pub(super) const PPK: Section = Section::new(
    "tunnel.NAME.ppk",
    &[
        Key::new(
            "tunnel.NAME.ppk.id",
            Kind::Text {
                octets_max: Some(PPK_ID_LEN_MAX),
                default: None,
            },
            Unset::Required,
            "The key's name, the same at both ends.",
        ),
        Key::new(
            "tunnel.NAME.ppk.file",
            Kind::File {
                octets: Some((PPK_LEN_MIN, PSK_LEN_MAX)),
            },
            Unset::Required,
            "A file with the key, read as a `psk-file` is.",
        ),
        Key::new(
            "tunnel.NAME.ppk.required",
            Kind::Flag {
                default: PPK_REQUIRED,
            },
            Unset::Default,
            "Whether a peer that has not got it is refused. `false` is for the time in which it is \
             being handed out. Not together with EAP.",
        ),
    ],
);

pub(super) const TRAFFIC: Section = Section::new(
    "tunnel.NAME.traffic",
    &[
        Key::new(
            "tunnel.NAME.traffic.local",
            Kind::List {
                of: "networks",
                most: None,
            },
            Unset::Is("the template's"),
            "Networks on this side.",
        ),
        Key::new(
            "tunnel.NAME.traffic.remote",
            Kind::List {
                of: "networks",
                most: None,
            },
            Unset::Is("the template's"),
            "Networks on the peer's side.",
        ),
    ],
);

pub(super) const INTERFACE: Section = Section::new(
    "tunnel.NAME.interface",
    &[
        Key::new(
            "tunnel.NAME.interface.name",
            Kind::Text {
                octets_max: Some(INTERFACE_NAME_LEN_MAX),
                default: None,
            },
            Unset::Required,
            "The interface's name.",
        ),
        Key::new(
            "tunnel.NAME.interface.mtu",
            Kind::Number(INTERFACE_MTU),
            Unset::Default,
            "Octets of its largest packets.",
        ),
    ],
);

pub(super) const PATH: Section = Section::new(
    "tunnel.NAME.path",
    &[
        Key::new(
            "tunnel.NAME.path.fragmentation",
            Kind::Flag {
                default: FRAGMENTATION,
            },
            Unset::Default,
            "IKE messages that are too long for one datagram go in several, each protected by itself \
             (RFC 7383), if the peer agrees. `false`: they depend on IP fragments, which many NATs \
             and firewalls drop.",
        ),
        Key::new(
            "tunnel.NAME.path.fragment-size",
            Kind::Number(FRAGMENT_SIZE),
            Unset::Default,
            "Octets of the longest IP datagram that carries a piece of an IKE message.",
        ),
        Key::new(
            "tunnel.NAME.path.nat-keepalive",
            Kind::DurationOr {
                bounds: NAT_KEEPALIVE,
                word: OFF,
                is_default: false,
            },
            Unset::Default,
            "Silence after which an end that is behind a NAT sends one octet, so that the NAT goes \
             on knowing it (RFC 3948).",
        ),
        Key::new(
            "tunnel.NAME.path.mobike",
            Kind::Flag { default: MOBIKE },
            Unset::Default,
            "When this end's address or its route to the peer changes, the tunnel goes on from \
             there, if the peer agrees (MOBIKE, RFC 4555): traffic is held, the new path is pinged, \
             and traffic goes on, with the same keys. Of the two ends the one that started the IKE \
             SA decides. `false`, or a peer without it: a new IKE SA is made.",
        ),
    ],
);

pub(super) const VIRTUAL: Section = Section::new(
    "tunnel.NAME.virtual",
    &[
        Key::new(
            "tunnel.NAME.virtual.request",
            Kind::Words {
                words: || FAMILIES.names().to_vec(),
                default: None,
            },
            Unset::Nothing,
            "The IP versions of which it asks an address. `traffic.local` is then what is assigned \
             and must not be given.",
        )
        .of_client(),
        Key::new(
            "tunnel.NAME.virtual.interface",
            Kind::Text {
                octets_max: Some(INTERFACE_LEN_MAX),
                default: Some(DEFAULT_VIRTUAL_INTERFACE),
            },
            Unset::Default,
            "The interface that gets the addresses.",
        )
        .of_client(),
        Key::new(
            "tunnel.NAME.virtual.pools",
            Kind::List {
                of: "names",
                most: None,
            },
            Unset::Nothing,
            "The pools that the client's addresses come from. `traffic.remote` is then what is \
             leased and must not be given.",
        )
        .of_server(),
    ],
);
