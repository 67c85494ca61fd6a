//! The way to each peer: addresses, route, and what size of packet it carries.

use std::net::IpAddr;

use epochgate_controller::config::{NatTraversal, TunnelConfig};
use epochgate_controller::crypto::Cipher;

use crate::doctor::facts::{Facts, Route, cipher_name};
use crate::doctor::finding::{Finding, Topic, Verdict};

/// Octets of an IPv4 header without options (RFC 791), an IPv6 header (RFC 8200), a TCP header
/// without options (RFC 9293) and a UDP header (RFC 768).
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;
/// Octets of SPI and sequence number (RFC 4303 §2).
const ESP_HEADER: u32 = 8;
/// Octets of pad length and next header, which end the payload (RFC 4303 §2).
const ESP_TRAILER: u32 = 2;
/// What the payload's end is aligned to at least (RFC 4303 §2.4).
const ESP_ALIGNMENT: u32 = 4;
/// Octets that every IPv6 link must carry (RFC 8200 §5).
const IPV6_MTU_MIN: u32 = 1280;

pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(why) = &facts.network.failure {
        let summary = format!("interfaces, addresses and routes can't be read: {why}");
        let check = "path.network";
        findings.push(Finding::new(Topic::Path, check, Verdict::Unknown, summary));
        return;
    }
    if !facts.is_about_tunnels() {
        in_general(facts, findings);
    }
    for tunnel in facts.tunnels() {
        findings.extend(
            of_tunnel(facts, tunnel)
                .into_iter()
                .map(|finding| finding.of(&tunnel.name)),
        );
    }
}

fn new(check: &'static str, verdict: Verdict, summary: impl Into<String>) -> Finding {
    Finding::new(Topic::Path, check, verdict, summary)
}

fn in_general(facts: &Facts, findings: &mut Vec<Finding>) {
    let links: Vec<String> = facts
        .network
        .links
        .iter()
        .filter(|link| {
            let mut defaults = facts.network.default_routes.iter();
            defaults.any(|(_, name)| *name == link.name)
        })
        .map(|link| format!("{} (MTU {})", link.name, link.mtu))
        .collect();
    findings.push(if links.is_empty() {
        new(
            "path.default",
            Verdict::Warn,
            "there is no default route: only peers on the own links are reached",
        )
        .cure("ip route add default via GATEWAY")
    } else {
        new(
            "path.default",
            Verdict::Good,
            format!("the way out: {}", links.join(", ")),
        )
    });
}

fn of_tunnel(facts: &Facts, tunnel: &TunnelConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(own) = tunnel.local.address
        && !facts.network.addresses.contains(&own)
    {
        findings.push(
            new(
                "path.address",
                Verdict::Bad,
                format!("{own}, which the tunnel is to use, is not an address of this host"),
            )
            .cure(format!("ip address add {own}/PREFIX dev INTERFACE"))
            .cure("or write address = \"%any\" in `local`: then the route chooses"),
        );
    }
    let Some(peer) = tunnel.remote.address else {
        findings.push(new(
            "path.route",
            Verdict::Good,
            "clients may come from anywhere: there is no path to look at",
        ));
        return findings;
    };
    match facts.network.routes.get(&peer) {
        Some(Ok(route)) if route.is_local => findings.push(
            new(
                "path.route",
                Verdict::Bad,
                format!("the peer {peer} is this host itself"),
            )
            .cure("write the other end's address in `remote`"),
        ),
        Some(Ok(route)) => findings.extend(size(facts, tunnel, peer, route)),
        Some(Err(why)) => findings.push(
            new(
                "path.route",
                Verdict::Bad,
                format!("there is no route to the peer {peer}"),
            )
            .because(why.clone())
            .cure(format!("ip route add {peer} via GATEWAY")),
        ),
        None => findings.push(new(
            "path.route",
            Verdict::Unknown,
            format!("the route to {peer} was not asked for"),
        )),
    }
    findings
}

/// The size of packets that the tunnel carries on this route.
fn size(facts: &Facts, tunnel: &TunnelConfig, peer: IpAddr, route: &Route) -> Vec<Finding> {
    let link = facts
        .network
        .links
        .iter()
        .find(|link| link.name == route.interface);
    let Some(link) = link else {
        let summary = format!("the MTU of {} is not known", route.interface);
        return vec![new("path.mtu", Verdict::Unknown, summary)];
    };
    let (outer, from) = match route.mtu {
        Some(mtu) if mtu < link.mtu => (mtu, "the route says"),
        _ => (link.mtu, "its interface's"),
    };
    let encapsulated = tunnel.nat_traversal == NatTraversal::Auto;
    let with = |cipher: &Cipher| inner_mtu(outer, peer.is_ipv6(), encapsulated, *cipher);
    let ciphers = &tunnel.esp.ciphers;
    let inner = ciphers.iter().map(with).min().unwrap_or(0);
    let preferred = ciphers.first().map_or(0, with);
    let carries_ipv6 = tunnel.local_traffic.iter().any(|net| net.addr().is_ipv6());
    let header = if carries_ipv6 {
        IPV6_HEADER
    } else {
        IPV4_HEADER
    };
    let mss = inner.saturating_sub(header + TCP_HEADER);
    let mut findings = Vec::new();
    let at_best = match ciphers.first() {
        Some(cipher) if preferred > inner => {
            format!(", {preferred} with {}", cipher_name(*cipher))
        }
        _ => String::new(),
    };
    let summary = format!(
        "to {peer} by {}, MTU {outer} ({from}): packets of {inner} octets fit in{at_best}; TCP \
         segments of {mss}",
        route.interface
    );
    let clamp = format!(
        "ip route show to match {}; then: ip route change … advmss {mss}",
        tunnel
            .remote_traffic
            .first()
            .map_or_else(|| "NETWORK".to_owned(), ToString::to_string)
    );
    findings.push(if inner < IPV6_MTU_MIN && carries_ipv6 {
        new("path.mtu", Verdict::Warn, summary)
            .because(format!(
                "IPv6 must carry {IPV6_MTU_MIN} octets (RFC 8200 §5), so that the kernel fragments \
                 what carries them; many firewalls drop fragments."
            ))
            .cure(format!(
                "raise the path's MTU to {} or more: ip link set {} mtu 1500",
                IPV6_MTU_MIN + (outer - inner),
                route.interface
            ))
    } else if inner < IPV6_MTU_MIN {
        new("path.mtu", Verdict::Warn, summary)
            .because(
                "That is little. Hosts whose ICMP is filtered hang with large packets; TCP can be \
                 told by a clamp.",
            )
            .cure(clamp)
            .cure(format!(
                "or on the gateway: nft add rule inet TABLE FORWARD-CHAIN tcp flags syn tcp option \
                 maxseg size set {mss}"
            ))
            .cure(format!(
                "or raise it, if the path carries more: ip link set {} mtu 1500",
                route.interface
            ))
    } else {
        new("path.mtu", Verdict::Good, summary)
    });
    if let Some(mtu) = route.mtu.filter(|mtu| *mtu > link.mtu) {
        findings.push(
            new(
                "path.route-mtu",
                Verdict::Warn,
                format!(
                    "the route to {peer} says MTU {mtu}, and {} has {}",
                    link.name, link.mtu
                ),
            )
            .because("The kernel believes the route, and longer packets are lost at the interface.")
            .cure(format!("ip route change {peer} … mtu {}", link.mtu)),
        );
    }
    if let Some(interface) = &tunnel.interface
        && interface.mtu > inner
    {
        findings.push(
            new(
                "path.interface-mtu",
                Verdict::Warn,
                format!(
                    "{} has MTU {}, and {inner} octets fit in",
                    interface.name, interface.mtu
                ),
            )
            .because("Longer packets are fragmented, or their senders are told by ICMP.")
            .cure(format!(
                "interface = {{ name = \"{}\", mtu = {inner} }}",
                interface.name
            )),
        );
    }
    if let Some(fragment) = tunnel.path.fragment_size
        && u32::from(fragment) > outer
    {
        findings.push(
            new(
                "path.ike-fragments",
                Verdict::Warn,
                format!("IKE's fragments of {fragment} octets do not fit into MTU {outer}"),
            )
            .because("IP fragments them again, and many firewalls drop such pieces.")
            .cure(format!("path = {{ fragment-size = {outer} }}")),
        );
    }
    findings
}

/// Octets of the largest inner packet whose ESP fits into `outer` octets (RFC 4303 §2, §3.3.2).
fn inner_mtu(outer: u32, ipv6: bool, encapsulated: bool, cipher: Cipher) -> u32 {
    let octets = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let header = if ipv6 { IPV6_HEADER } else { IPV4_HEADER };
    let udp = if encapsulated { UDP_HEADER } else { 0 };
    let around = header
        .saturating_add(udp + ESP_HEADER)
        .saturating_add(octets(cipher.iv_len()))
        .saturating_add(octets(cipher.icv_len()));
    let alignment = octets(cipher.block_len()).max(ESP_ALIGNMENT);
    let payload = outer.saturating_sub(around) / alignment * alignment;
    payload.saturating_sub(ESP_TRAILER)
}

#[cfg(test)]
mod tests {
    use epochgate_controller::crypto::{AesKey, Integrity};

    use super::*;

    /// As `ip route get` and `ping -M do` say on a real kernel.
    #[test]
    fn the_largest_inner_packet_is_the_kernels() {
        let cbc = Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha256);
        assert_eq!(inner_mtu(1500, false, false, Cipher::AesGcm256), 1446);
        assert_eq!(inner_mtu(1500, false, true, Cipher::AesGcm256), 1438);
        assert_eq!(inner_mtu(1500, true, false, Cipher::AesGcm256), 1426);
        assert_eq!(inner_mtu(1500, false, false, cbc), 1438);
        assert_eq!(inner_mtu(40, true, true, cbc), 0);
    }
}
