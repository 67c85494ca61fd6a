//! Keys of a policy template (`xfrm-policies/*.toml`).

use super::{Key, Kind, Section, Unset};
use crate::keys::{PRIORITY, TEMPLATE_EXEMPT_ND, TEMPLATE_FORWARD, TEMPLATE_ROUTES};

pub(super) const SECTIONS: &[Section] = &[
    Section::new(
        "",
        &[
            Key::new(
                "description",
                Kind::Text {
                    octets_max: None,
                    default: None,
                },
                Unset::Nothing,
                "For people.",
            ),
            Key::new(
                "forward",
                Kind::Flag {
                    default: TEMPLATE_FORWARD,
                },
                Unset::Default,
                "`fwd` policies: what the tunnel brings is accepted for hosts behind this one.",
            ),
            Key::new(
                "exempt-neighbour-discovery",
                Kind::Flag {
                    default: TEMPLATE_EXEMPT_ND,
                },
                Unset::Default,
                "IPv6 neighbour discovery between the networks (RFC 4861) passes outside the tunnel.",
            ),
            Key::new(
                "routes",
                Kind::Flag {
                    default: TEMPLATE_ROUTES,
                },
                Unset::Default,
                "A route to each remote network, with an address of this host inside \
                 `traffic.local` as the preferred source, where it has one.",
            ),
            Key::new(
                "priority",
                Kind::Number(PRIORITY),
                Unset::Default,
                "Priority in the SPD for a pair of single addresses; lower comes first, and wider \
                 networks come after.",
            ),
        ],
    ),
    Section::new("traffic", &[]),
    Section::new(
        "traffic.client",
        &[
            Key::new(
                "traffic.client.local",
                NETWORKS,
                Unset::Nothing,
                "Networks on the side of a client that names none in `traffic.local`. `\"%outer\"` \
                 is that end's outer address. Of IP versions that the other side does not name, \
                 they are left out.",
            ),
            Key::new(
                "traffic.client.remote",
                NETWORKS,
                Unset::Nothing,
                "The same for `traffic.remote` of a client.",
            ),
        ],
    ),
    Section::new(
        "traffic.server",
        &[
            Key::new(
                "traffic.server.local",
                NETWORKS,
                Unset::Nothing,
                "The same for `traffic.local` of a server.",
            ),
            Key::new(
                "traffic.server.remote",
                NETWORKS,
                Unset::Nothing,
                "The same for `traffic.remote` of a server.",
            ),
        ],
    ),
];

const NETWORKS: Kind = Kind::List {
    of: "networks",
    most: None,
};
