//! Kernel settings (sysctl).

use epochgate_controller::config::{Role, TunnelConfig};

use super::{Facts, family};
use crate::doctor::finding::{Finding, Topic, Verdict};

/// Seconds that the kernel keeps a larval SA, by default (`net.core.xfrm_acq_expires`).
const ACQUIRE_SECONDS_DEFAULT: i64 = 30;

/// Share of conntrack's table that is used when it is time to say so.
const CONNTRACK_FULL_PERCENT: i64 = 90;

pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    larval(facts, findings);
    forwarding(facts, findings);
    if facts.is_about_tunnels() {
        for tunnel in facts.tunnels() {
            of_interfaces(facts, Some(tunnel), findings);
            redirects(facts, tunnel, findings);
        }
    } else {
        of_interfaces(facts, None, findings);
    }
    echo(facts, findings);
    path_mtu(facts, findings);
    conntrack(facts, findings);
}

fn new(check: &'static str, verdict: Verdict, summary: impl Into<String>) -> Finding {
    Finding::new(Topic::Settings, check, verdict, summary)
}

/// The command, and how to make it last.
fn set(finding: Finding, key: &str, value: &str) -> Finding {
    finding
        .cure(format!("sysctl -w {key}={value}"))
        .cure(format!(
            "for after a boot: echo {key}={value} >>/etc/sysctl.d/60-epochgate.conf"
        ))
}

fn larval(facts: &Facts, findings: &mut Vec<Finding>) {
    let key = "net.core.xfrm_larval_drop";
    let runs = facts.processes.iter().any(|p| p.name == "epochgated");
    findings.push(match facts.settings.number(key) {
        Some(0) => new(
            "settings.larval-drop",
            Verdict::Good,
            format!("{key} is 0: the kernel holds packets"),
        ),
        Some(_) if runs => new(
            "settings.larval-drop",
            Verdict::Bad,
            format!("{key} is not 0: the kernel drops what epochgated wants held"),
        )
        .because("The daemon has set it to 0; another program has set it back.")
        .cure(format!("sysctl -w {key}=0")),
        Some(_) => new(
            "settings.larval-drop",
            Verdict::Good,
            format!("{key} is 1; the daemon sets it to 0 while it runs"),
        ),
        None => new(
            "settings.larval-drop",
            Verdict::Unknown,
            format!("{key} can't be read"),
        )
        .because("A kernel without XFRM has no such setting; a container may hide it."),
    });
    let key = "net.core.xfrm_acq_expires";
    if let Some(seconds) = facts.settings.number(key)
        && seconds > ACQUIRE_SECONDS_DEFAULT
    {
        findings.push(
            new(
                "settings.acquire-expires",
                Verdict::Warn,
                format!("{key} is {seconds} s"),
            )
            .because(
                "So long an SPI stays blocked by a packet that came when its SA was gone; \
                 strongSwan sets 165.",
            )
            .cure(format!("sysctl -w {key}={ACQUIRE_SECONDS_DEFAULT}")),
        );
    }
}

fn forwarding(facts: &Facts, findings: &mut Vec<Finding>) {
    for ipv6 in [false, true] {
        let (check, key) = if ipv6 {
            ("settings.forwarding-ipv6", "net.ipv6.conf.all.forwarding")
        } else {
            ("settings.forwarding-ipv4", "net.ipv4.ip_forward")
        };
        let name = family(ipv6);
        let forwards = match facts.settings.number(key) {
            Some(value) => value != 0,
            None => {
                let verdict = Verdict::Unknown;
                findings.push(new(check, verdict, format!("{key} can't be read")));
                continue;
            }
        };
        if !facts.is_about_tunnels() {
            let summary = if forwards {
                format!("{name} is forwarded")
            } else {
                format!("{name} is not forwarded: right for a host, not for a gateway")
            };
            findings.push(new(check, Verdict::Good, summary));
            continue;
        }
        let mut needs = false;
        for tunnel in facts.tunnels() {
            let Some(network) = forwarded(facts, tunnel, ipv6) else {
                continue;
            };
            needs = true;
            if !forwards {
                let finding = new(
                    check,
                    Verdict::Bad,
                    format!("{name} is not forwarded, and {network} is more than this host"),
                )
                .of(&tunnel.name)
                .because("What comes out of the tunnel for other hosts is dropped, and theirs never enters it.");
                findings.push(set(finding, key, "1"));
            }
        }
        if needs && forwards {
            findings.push(new(check, Verdict::Good, format!("{name} is forwarded")));
        } else if !needs && ipv6 == facts.tunnels().any(super::outer_ipv6) {
            findings.push(new(
                check,
                Verdict::Good,
                format!("{name} need not be forwarded: the tunnels are this host's own"),
            ));
        }
    }
}

/// A local network of the tunnel that this host is only the gateway of.
pub(super) fn forwarded(facts: &Facts, tunnel: &TunnelConfig, ipv6: bool) -> Option<ipnet::IpNet> {
    if !tunnel.template.forward {
        return None;
    }
    tunnel.local_traffic.iter().copied().find(|network| {
        network.addr().is_ipv6() == ipv6 && !facts.network.is_own(*network)
            // A host alone that is not here yet (%any, a lease) is no gateway's network.
            && network.prefix_len() < network.max_prefix_len()
    })
}

/// Settings of the interfaces by which packets enter and leave the tunnels.
fn of_interfaces(facts: &Facts, tunnel: Option<&TunnelConfig>, findings: &mut Vec<Finding>) {
    let of = |finding: Finding| match tunnel {
        Some(tunnel) => finding.of(&tunnel.name),
        None => finding,
    };
    let number = |key: String| facts.settings.number(&key).unwrap_or(0);
    let mut is_good = true;
    for interface in facts.network.interfaces_of(tunnel) {
        for (family, setting, meaning) in [
            (
                "ipv4",
                "disable_xfrm",
                "What leaves by this interface meets no policy: a tunnel's traffic goes in clear.",
            ),
            (
                "ipv4",
                "disable_policy",
                "What comes in by this interface meets no policy: packets in clear pass for the \
                 tunnel's.",
            ),
            (
                "ipv6",
                "disable_policy",
                "What comes in by this interface meets no policy: packets in clear pass for the \
                 tunnel's.",
            ),
        ] {
            for scope in ["all", interface] {
                let key = format!("net.{family}.conf.{scope}.{setting}");
                // Either is enough (IN_DEV_ORCONF; for IPv6 addrconf_f6i_alloc).
                if number(key.clone()) == 0 {
                    continue;
                }
                is_good = false;
                let check = match setting {
                    "disable_xfrm" => "settings.disable-xfrm",
                    _ => "settings.disable-policy",
                };
                let finding = new(check, Verdict::Bad, format!("{key} is on")).because(meaning);
                findings.push(of(set(finding, &key, "0")));
            }
        }
    }
    reverse_path(facts, tunnel, findings);
    if is_good && !facts.network.interfaces_of(tunnel).is_empty() {
        let names = super::listed(facts.network.interfaces_of(tunnel));
        let summary = format!("policies are in force on {names}");
        findings.push(of(new("settings.disable-xfrm", Verdict::Good, summary)));
    }
}

/// Strict source validation (RFC 3704): what comes in by an interface that no route back to its
/// source leads out of is dropped. The kernel spares decrypted packets (`fib_validate_source` asks
/// `secpath_exists`), but not the ESP and IKE that carry them.
fn reverse_path(facts: &Facts, tunnel: Option<&TunnelConfig>, findings: &mut Vec<Finding>) {
    const STRICT: i64 = 1;
    let ways_out: Vec<&str> = facts
        .network
        .default_routes
        .iter()
        .filter(|(ipv6, _)| !ipv6)
        .map(|(_, name)| name.as_str())
        .collect();
    let back = tunnel.and_then(|tunnel| facts.network.outer_interface(tunnel));
    let all = facts.settings.number("net.ipv4.conf.all.rp_filter");
    for interface in &ways_out {
        let key = format!("net.ipv4.conf.{interface}.rp_filter");
        let own = facts.settings.number(&key);
        // The greater one counts (Documentation/networking/ip-sysctl.rst).
        let is_strict = all.max(own) == Some(STRICT);
        let is_another = match back {
            Some(back) => back != *interface,
            None => ways_out.len() > 1,
        };
        if !is_strict || !is_another {
            continue;
        }
        let finding = new(
            "settings.rp-filter",
            Verdict::Warn,
            format!("rp_filter is strict on {interface}, and another way leads out too"),
        )
        .because(match back {
            Some(back) => format!(
                "ESP and IKE of the peer that come in by {interface} are dropped without a word, \
                 because the route back leads out of {back}. What has been decrypted is spared."
            ),
            None => format!(
                "ESP and IKE that come in by {interface} are dropped without a word where the route \
                 back leads elsewhere. What has been decrypted is spared."
            ),
        })
        .cure(format!("sysctl -w {key}=2"));
        findings.push(match tunnel {
            Some(tunnel) => finding.of(&tunnel.name),
            None => finding,
        });
    }
}

/// A gateway whose hosts and way out are on one link tells them to go round it.
fn redirects(facts: &Facts, tunnel: &TunnelConfig, findings: &mut Vec<Finding>) {
    let Some(local) = forwarded(facts, tunnel, false) else {
        return;
    };
    let inside = facts.network.route_into(local);
    let outside = tunnel
        .remote_traffic
        .iter()
        .filter(|network| network.addr().is_ipv4())
        .find_map(|network| facts.network.route_into(*network));
    let (Some(inside), Some(outside)) = (inside, outside) else {
        return;
    };
    if inside.interface != outside.interface || inside.interface == "lo" {
        return;
    }
    let interface = &inside.interface;
    let keys = ["all", interface].map(|scope| format!("net.ipv4.conf.{scope}.send_redirects"));
    if keys.iter().any(|key| facts.settings.number(key) == Some(1)) {
        let [all, own] = keys;
        findings.push(
            new(
                "settings.send-redirects",
                Verdict::Warn,
                format!("hosts on {interface} are told (ICMP redirect) to go round this gateway"),
            )
            .of(&tunnel.name)
            .because(format!(
                "{local} and the way to the peer are on one interface."
            ))
            .cure(format!("sysctl -w {all}=0 {own}=0")),
        );
    }
}

/// A server's kernel answers its clients' control pings.
fn echo(facts: &Facts, findings: &mut Vec<Finding>) {
    for ipv6 in [false, true] {
        let key = if ipv6 {
            "net.ipv6.icmp.echo_ignore_all"
        } else {
            "net.ipv4.icmp_echo_ignore_all"
        };
        if facts.settings.number(key).unwrap_or(0) == 0 {
            continue;
        }
        let finding = |verdict, summary: String| {
            let finding = new("settings.echo", verdict, summary).because(
                "A client proves each epoch by a ping to an address behind the server, mostly the \
                 server's own.",
            );
            finding.cure(format!("sysctl -w {key}=0"))
        };
        if !facts.is_about_tunnels() {
            let summary = format!("{key} is on: as a server this host proves no epoch");
            findings.push(finding(Verdict::Warn, summary));
        }
        for tunnel in facts.tunnels() {
            let concerned = tunnel.role == Role::Server
                && tunnel
                    .local_traffic
                    .iter()
                    .any(|network| network.addr().is_ipv6() == ipv6);
            if concerned {
                let summary = format!("{key} is on: clients' control pings are not answered");
                findings.push(finding(Verdict::Bad, summary).of(&tunnel.name));
            }
        }
    }
}

fn path_mtu(facts: &Facts, findings: &mut Vec<Finding>) {
    let key = "net.ipv4.ip_no_pmtu_disc";
    if let Some(value) = facts.settings.number(key)
        && value != 0
    {
        findings.push(
            new(
                "settings.pmtu-discovery",
                Verdict::Warn,
                format!("{key} is {value}: the kernel does not look for the path's MTU"),
            )
            .because("ESP packets are fragmented on the way, and many firewalls drop fragments.")
            .cure(format!("sysctl -w {key}=0")),
        );
    }
}

/// A full table of connections drops the first packet of each new one, IKE's and ESP's too.
fn conntrack(facts: &Facts, findings: &mut Vec<Finding>) {
    let [count, max] = ["count", "max"].map(|what| {
        let key = format!("net.netfilter.nf_conntrack_{what}");
        facts.settings.number(&key)
    });
    if let (Some(count), Some(max)) = (count, max)
        && max > 0
        && count.saturating_mul(100) >= max.saturating_mul(CONNTRACK_FULL_PERCENT)
    {
        findings.push(
            new(
                "settings.conntrack",
                Verdict::Warn,
                format!("conntrack knows {count} connections of at most {max}"),
            )
            .because("Once it is full, first packets of new connections are dropped, IKE's too.")
            .cure(format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}",
                max.saturating_mul(2)
            )),
        );
    }
}
