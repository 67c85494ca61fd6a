//! Facts written by hand, and what is to be said of them.

use std::net::IpAddr;
use std::sync::Arc;

use epochgate_controller::Secret;
use epochgate_controller::config::{CIPHERS, End, Identity, NatTraversal, Role, TunnelConfig};
use epochgate_host::firewall::{iptables, nft};

use super::facts::{
    Answer, Build, Configuration, ConfigurationState, Daemon, DaemonState, Facts, Firewall, Kernel,
    Learnt, Link, Network, PortHolder, Probe, Process, Route, Settings, cipher_name,
};
use super::finding::{Finding, Outcome, Verdict};
use super::judge::judge;
use super::render;
use crate::terminal::Paint;

const PEER: &str = "203.0.113.1";

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn end(text: Option<&str>, id: &str) -> End {
    End {
        address: text.map(address),
        id: Identity::Fqdn(id.to_owned()),
    }
}

fn tunnel(role: Role) -> TunnelConfig {
    let (local, remote) = match role {
        Role::Client => (None, Some(PEER)),
        Role::Server => (Some("192.0.2.2"), None),
    };
    let psk = Secret::from(b"a key of tests".to_vec());
    let mut tunnel = TunnelConfig::new("net", role, end(local, "we"), end(remote, "they"), psk);
    tunnel.local_traffic = vec!["10.1.0.0/16".parse().expect("network")];
    tunnel.remote_traffic = vec!["10.2.0.0/16".parse().expect("network")];
    tunnel
}

/// A gateway on which all is well.
fn healthy(tunnel: Option<TunnelConfig>) -> Facts {
    let ciphers = CIPHERS
        .iter()
        .map(|c| (cipher_name(*c).to_owned(), Answer::Yes));
    let route = |interface: &str, source: &str| {
        Ok(Route {
            interface: interface.to_owned(),
            source: Some(address(source)),
            is_local: false,
            mtu: None,
        })
    };
    let link = |index, name: &str| Link {
        index,
        name: name.to_owned(),
        mtu: 1500,
    };
    Facts {
        is_root: true,
        capabilities: Some(u64::MAX),
        configuration: Configuration {
            file: "/etc/epochgate/epochgate.toml".to_owned(),
            state: match tunnel {
                Some(_) => ConfigurationState::Good,
                None => ConfigurationState::Absent,
            },
            tunnels: tunnel.into_iter().map(Arc::new).collect(),
            unread_secrets: Default::default(),
        },
        kernel: Kernel {
            release: "6.12.0".to_owned(),
            lockdown: Some("none".to_owned()),
            has_statistics: true,
            probe: Probe {
                refused: None,
                esp_v4: Answer::Yes,
                esp_v6: Answer::Yes,
                encapsulation_v4: Answer::Yes,
                encapsulation_v6: Answer::Yes,
                extended_numbers: Answer::Yes,
                interface: Answer::Yes,
                ciphers: ciphers.collect(),
                drivers: Default::default(),
                policy: Answer::Yes,
            },
            build: Build::default(),
        },
        settings: Settings(
            [
                ("net.core.xfrm_larval_drop", "1"),
                ("net.core.xfrm_acq_expires", "30"),
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv4.icmp_echo_ignore_all", "0"),
                ("net.ipv4.ip_no_pmtu_disc", "0"),
                ("net.ipv6.conf.all.forwarding", "0"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ),
        network: Network {
            failure: None,
            links: vec![link(1, "lo"), link(2, "wan"), link(3, "lan")],
            addresses: ["127.0.0.1", "192.0.2.2", "10.1.0.1"].map(address).into(),
            default_routes: [(false, "wan".to_owned())].into(),
            routes: [
                (address(PEER), route("wan", "192.0.2.2")),
                (address("10.2.0.1"), route("wan", "192.0.2.2")),
                (address("10.1.0.1"), route("lo", "10.1.0.1")),
            ]
            .into(),
        },
        ports: Vec::new(),
        processes: Vec::new(),
        firewall: Firewall::default(),
        policies: Learnt::Known(Vec::new()),
        daemon: Daemon {
            socket: "/run/epochgate/control.sock".to_owned(),
            state: DaemonState::NotRunning,
            unit: None,
        },
    }
}

fn client() -> Facts {
    healthy(Some(tunnel(Role::Client)))
}

fn server() -> Facts {
    healthy(Some(tunnel(Role::Server)))
}

fn set(facts: &mut Facts, key: &str, value: &str) {
    facts.settings.0.insert(key.to_owned(), value.to_owned());
}

fn of<'f>(findings: &'f [Finding], check: &str, verdict: Verdict) -> Option<&'f Finding> {
    findings
        .iter()
        .find(|finding| finding.check == check && finding.verdict == verdict)
}

/// The finding of a check, and the outcome of the whole.
#[track_caller]
fn found(facts: &Facts, check: &str, verdict: Verdict) -> (Finding, Outcome) {
    let findings = judge(facts);
    let found = of(&findings, check, verdict);
    let found = found.unwrap_or_else(|| panic!("no {verdict:?} {check} in {findings:#?}"));
    (found.clone(), Outcome::of(&findings))
}

#[track_caller]
fn bad(facts: &Facts, check: &str) -> Finding {
    let (finding, outcome) = found(facts, check, Verdict::Bad);
    assert_eq!(outcome, Outcome::CannotWork);
    assert!(!finding.cure.is_empty(), "{finding:?}");
    finding
}

#[test]
fn where_all_is_well_everything_is_good() {
    for facts in [client(), server(), healthy(None)] {
        let findings = judge(&facts);
        let other = findings.iter().find(|f| f.verdict != Verdict::Good);
        assert_eq!(other, None);
        assert_eq!(Outcome::of(&findings), Outcome::CanWork);
    }
}

#[test]
fn a_kernel_without_esp_is_told_its_missing_option() {
    let mut facts = client();
    facts.kernel.probe.esp_v4 = Answer::No("EPROTONOSUPPORT".to_owned());
    let finding = bad(&facts, "kernel.esp-ipv4");
    assert!(
        finding
            .cure
            .iter()
            .any(|cure| cure.contains("CONFIG_INET_ESP"))
    );
    // IPv6 is not used.
    facts = client();
    facts.kernel.probe.esp_v6 = Answer::No("EPROTONOSUPPORT".to_owned());
    let (_, outcome) = found(&facts, "kernel.esp-ipv6", Verdict::Warn);
    assert_eq!(outcome, Outcome::CanWork);
}

#[test]
fn where_the_kernel_cannot_be_asked_its_configuration_tells() {
    let mut facts = client();
    facts.is_root = false;
    facts.kernel.probe = Probe {
        refused: Some("EPERM".to_owned()),
        ..Probe::default()
    };
    let (finding, outcome) = found(&facts, "kernel.esp-ipv4", Verdict::Unknown);
    assert_eq!(outcome, Outcome::Unknown);
    assert_eq!(finding.cure, ["sudo epochgate doctor"]);

    facts.kernel.build.source = Some("/boot/config-6.12.0".to_owned());
    let options = [("XFRM_USER".to_owned(), true)];
    facts.kernel.build.options = options.into();
    let finding = bad(&facts, "kernel.esp-ipv4");
    let detail = finding.detail.expect("why");
    assert!(
        detail.contains("/boot/config-6.12.0 does not have CONFIG_INET_ESP."),
        "{detail}"
    );

    facts
        .kernel
        .build
        .options
        .insert("INET_ESP".to_owned(), false);
    found(&facts, "kernel.esp-ipv4", Verdict::Good);
}

#[test]
fn one_cipher_that_is_lacking_warns_and_all_of_a_tunnels_prevent_it() {
    let mut facts = client();
    let no = || Answer::No("ENOSYS".to_owned());
    let ciphers = &mut facts.kernel.probe.ciphers;
    ciphers.insert("chacha20poly1305".to_owned(), no());
    found(&facts, "kernel.ciphers", Verdict::Warn);
    for answer in facts.kernel.probe.ciphers.values_mut() {
        *answer = no();
    }
    bad(&facts, "kernel.ciphers");
}

#[test]
fn a_port_is_good_in_the_hands_of_the_daemon_alone() {
    let mut facts = client();
    let holder = |text: &str| PortHolder {
        port: 500,
        holder: Some(text.to_owned()),
    };
    facts.ports = vec![holder("charon-systemd (pid 7)")];
    assert_eq!(
        bad(&facts, "ports.500").cure,
        ["systemctl disable --now strongswan"]
    );
    facts.ports = vec![holder("socat (pid 9)")];
    assert_eq!(bad(&facts, "ports.500").cure, ["stop it: kill 9"]);
    facts.ports = vec![holder("epochgated (pid 8)")];
    found(&facts, "ports.500", Verdict::Good);
    facts.ports[0].holder = None;
    bad(&facts, "ports.500");
}

#[test]
fn a_running_daemon_needs_its_capabilities_and_its_setting() {
    let mut facts = client();
    facts.processes = vec![Process {
        pid: 8,
        name: "epochgated".to_owned(),
        capabilities: Some(1 << 12 | 1 << 10),
        is_here: Some(true),
    }];
    assert!(
        bad(&facts, "privileges.daemon")
            .summary
            .contains("CAP_NET_RAW")
    );
    bad(&facts, "settings.larval-drop");
    set(&mut facts, "net.core.xfrm_larval_drop", "0");
    found(&facts, "settings.larval-drop", Verdict::Good);
}

#[test]
fn a_gateway_must_forward_and_a_host_need_not() {
    let mut facts = client();
    set(&mut facts, "net.ipv4.ip_forward", "0");
    let finding = bad(&facts, "settings.forwarding-ipv4");
    assert_eq!(finding.cure[0], "sysctl -w net.ipv4.ip_forward=1");
    let mut own = tunnel(Role::Client);
    own.local_traffic = vec!["10.1.0.1/32".parse().expect("network")];
    facts.configuration.tunnels = vec![Arc::new(own)];
    found(&facts, "settings.forwarding-ipv4", Verdict::Good);
}

#[test]
fn settings_that_take_policies_out_of_force_are_bad_where_the_tunnel_passes() {
    for key in [
        "net.ipv4.conf.wan.disable_xfrm",
        "net.ipv4.conf.all.disable_xfrm",
    ] {
        let mut facts = client();
        set(&mut facts, key, "1");
        assert_eq!(
            bad(&facts, "settings.disable-xfrm").cure[0],
            format!("sysctl -w {key}=0")
        );
    }
    let mut facts = server();
    let ways_out = &mut facts.network.default_routes;
    ways_out.insert((false, "wan2".to_owned()));
    set(&mut facts, "net.ipv4.conf.all.disable_xfrm", "1");
    let findings = judge(&facts);
    let said = findings.iter().filter(|f| f.verdict == Verdict::Bad);
    assert_eq!(said.count(), 1, "two interfaces, one setting");
    let mut facts = client();
    set(&mut facts, "net.ipv4.conf.lan2.disable_xfrm", "1");
    found(&facts, "settings.disable-xfrm", Verdict::Good);
    set(&mut facts, "net.ipv6.conf.wan.disable_policy", "1");
    bad(&facts, "settings.disable-policy");
}

#[test]
fn strict_source_validation_matters_on_another_way_than_the_one_back() {
    let strict = |facts: &Facts| of(&judge(facts), "settings.rp-filter", Verdict::Warn).cloned();
    let mut facts = client();
    set(&mut facts, "net.ipv4.conf.all.rp_filter", "1");
    assert_eq!(strict(&facts), None);
    facts
        .network
        .default_routes
        .insert((false, "wan2".to_owned()));
    let (finding, outcome) = found(&facts, "settings.rp-filter", Verdict::Warn);
    assert_eq!(outcome, Outcome::CanWork);
    assert_eq!(finding.cure, ["sysctl -w net.ipv4.conf.wan2.rp_filter=2"]);
    // Loose validation of the interface wins over strict one of all.
    set(&mut facts, "net.ipv4.conf.wan2.rp_filter", "2");
    assert_eq!(strict(&facts), None);
    // Clients of a server come by any way.
    let mut facts = server();
    facts
        .network
        .default_routes
        .insert((false, "wan2".to_owned()));
    set(&mut facts, "net.ipv4.conf.wan.rp_filter", "1");
    assert!(strict(&facts).is_some());
}

#[test]
fn a_server_that_answers_no_pings_proves_nothing() {
    let mut facts = server();
    set(&mut facts, "net.ipv4.icmp_echo_ignore_all", "1");
    bad(&facts, "settings.echo");
    let mut facts = client();
    set(&mut facts, "net.ipv4.icmp_echo_ignore_all", "1");
    assert_eq!(Outcome::of(&judge(&facts)), Outcome::CanWork);
}

#[test]
fn a_gateway_on_one_leg_sends_redirects() {
    let mut facts = client();
    let outside = facts.network.routes[&address("10.2.0.1")].clone();
    facts.network.routes.insert(address("10.1.0.1"), outside);
    set(&mut facts, "net.ipv4.conf.wan.send_redirects", "1");
    found(&facts, "settings.send-redirects", Verdict::Warn);
}

#[test]
fn a_table_of_connections_that_is_nearly_full_is_told() {
    let mut facts = client();
    set(&mut facts, "net.netfilter.nf_conntrack_max", "1000");
    for (count, verdict) in [("899", None), ("900", Some(Verdict::Warn))] {
        set(&mut facts, "net.netfilter.nf_conntrack_count", count);
        let found = of(&judge(&facts), "settings.conntrack", Verdict::Warn).cloned();
        assert_eq!(found.map(|finding| finding.verdict), verdict);
    }
}

fn saved(facts: &mut Facts, rules: &str) {
    let text =
        format!("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n{rules}\nCOMMIT\n");
    facts.firewall.chains = iptables::read(&text, false);
}

#[test]
fn a_firewall_that_lets_answers_in_is_enough_for_a_client_and_not_for_a_server() {
    let rules = ":INPUT DROP\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    let mut facts = client();
    saved(&mut facts, rules);
    found(&facts, "firewall.rules", Verdict::Good);
    let mut facts = server();
    saved(&mut facts, rules);
    let finding = bad(&facts, "firewall.ike");
    assert_eq!(
        finding.cure[0],
        "iptables -t filter -I INPUT -p udp --dport 500 -j ACCEPT"
    );
    for check in ["firewall.nat-traversal", "firewall.esp", "firewall.ping"] {
        bad(&facts, check);
    }
}

#[test]
fn without_nat_traversal_port_4500_is_nobodys_business() {
    let mut facts = server();
    let rules = "-A INPUT -p udp --dport 4500 -j DROP";
    saved(&mut facts, rules);
    bad(&facts, "firewall.nat-traversal");
    let mut plain = tunnel(Role::Server);
    plain.nat_traversal = NatTraversal::Off;
    facts.configuration.tunnels = vec![Arc::new(plain)];
    found(&facts, "firewall.rules", Verdict::Good);
}

#[test]
fn a_rule_about_another_peer_or_interface_does_not_matter() {
    for rules in [
        "-A INPUT -s 198.51.100.1 -p esp -j DROP",
        "-A INPUT -i lan -p esp -j DROP",
        "-A INPUT -p tcp -j DROP",
    ] {
        let mut facts = client();
        saved(&mut facts, rules);
        found(&facts, "firewall.rules", Verdict::Good);
    }
}

#[test]
fn a_rule_that_cannot_be_judged_is_shown_and_is_not_called_bad() {
    let mut facts = client();
    saved(&mut facts, "-A INPUT -m mark --mark 0x1 -p esp -j DROP");
    let (finding, outcome) = found(&facts, "firewall.esp", Verdict::Unknown);
    assert!(
        finding.summary.contains("--mark 0x1"),
        "{}",
        finding.summary
    );
    assert_eq!(outcome, Outcome::CanWork);
}

#[test]
fn forwarded_traffic_that_a_firewall_drops_or_rewrites_is_found() {
    let mut facts = client();
    saved(&mut facts, ":FORWARD DROP");
    bad(&facts, "firewall.forward");
    facts.firewall.chains = iptables::read(
        "*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n",
        false,
    );
    let finding = bad(&facts, "firewall.source-nat");
    assert!(
        finding.cure[1]
            .ends_with("iptables -t nat -I POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT")
    );
}

#[test]
fn ike_that_is_sent_elsewhere_is_found_on_a_server() {
    let mut facts = server();
    facts.firewall.chains = nft::read(
        br#"{"nftables": [
        {"chain": {"family": "ip", "table": "n", "name": "pre", "type": "nat", "hook": "prerouting",
                   "prio": -100}},
        {"rule": {"family": "ip", "table": "n", "chain": "pre", "handle": 3, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}},
                       "right": 500}}, {"dnat": {"addr": "10.1.0.9"}}]}}]}"#,
    )
    .expect("JSON")
    .chains;
    assert!(
        bad(&facts, "firewall.ike")
            .summary
            .contains("rule handle 3")
    );
}

#[test]
fn rules_that_this_user_may_not_see_leave_the_question_open() {
    let mut facts = client();
    facts.is_root = false;
    let unread = ("nft".to_owned(), Learnt::NotAllowed);
    facts.firewall.unread = vec![unread];
    let (_, outcome) = found(&facts, "firewall.unread", Verdict::Unknown);
    assert_eq!(outcome, Outcome::Unknown);
    // A program that is not there leaves less open: mostly there are no rules then.
    let unread = (
        "nft".to_owned(),
        Learnt::Unknown("it is not installed".to_owned()),
    );
    facts.firewall.unread = vec![unread];
    let (_, outcome) = found(&facts, "firewall.unread", Verdict::Unknown);
    assert_eq!(outcome, Outcome::CanWork);
}

#[test]
fn the_path_is_that_of_the_route() {
    let mut facts = client();
    route_of(&mut facts).as_mut().expect("route").mtu = Some(1200);
    let (finding, _) = found(&facts, "path.mtu", Verdict::Warn);
    assert!(
        finding.summary.contains("MTU 1200 (the route says)"),
        "{}",
        finding.summary
    );
    found(&facts, "path.ike-fragments", Verdict::Warn);
    route_of(&mut facts).as_mut().expect("route").mtu = Some(9000);
    found(&facts, "path.route-mtu", Verdict::Warn);
    *route_of(&mut facts) = Err("unreachable".to_owned());
    bad(&facts, "path.route");
    let mut facts = server();
    facts
        .network
        .addresses
        .retain(|own| *own != address("192.0.2.2"));
    bad(&facts, "path.address");
}

fn route_of(facts: &mut Facts) -> &mut Result<Route, String> {
    facts.network.routes.get_mut(&address(PEER)).expect("route")
}

#[test]
fn mistakes_and_unreadable_files_have_outcomes_of_their_own() {
    let mut facts = healthy(None);
    facts.configuration.state = ConfigurationState::Mistaken("line 1\nline 2".to_owned());
    let (_, outcome) = found(&facts, "configuration.file", Verdict::Bad);
    assert_eq!((outcome, outcome.exit_code()), (Outcome::Mistakes, 2));
    facts.configuration.state = ConfigurationState::Unreadable("EACCES".to_owned());
    let (_, outcome) = found(&facts, "configuration.file", Verdict::Unknown);
    assert_eq!((outcome, outcome.exit_code()), (Outcome::Unknown, 4));
}

/// One of each verdict, with text of several lines and with an escape sequence of a stranger.
fn ill() -> Facts {
    let mut facts = client();
    set(&mut facts, "net.ipv4.ip_forward", "0");
    saved(
        &mut facts,
        "-A INPUT -p esp -m comment --comment \"\x1b[31mred\" -j DROP",
    );
    facts
        .network
        .default_routes
        .insert((false, "wan2".to_owned()));
    set(&mut facts, "net.ipv4.conf.wan2.rp_filter", "1");
    facts.policies = Learnt::NotAllowed;
    facts.ports = vec![PortHolder {
        port: 500,
        holder: Some("charon (pid 7)".to_owned()),
    }];
    facts
}

fn screen(facts: &Facts, paint: Paint, width: usize) -> String {
    let findings = judge(facts);
    render::text(&findings, Outcome::of(&findings), paint, width)
}

#[test]
fn screens_fit_their_width_and_obey_nobody() {
    let mut mistaken = healthy(None);
    let mistakes = "error: unknown key\n  |\n3 | polcy = 1\n  | ^^^^^";
    mistaken.configuration.state = ConfigurationState::Mistaken(mistakes.to_owned());
    for (name, facts) in [
        ("healthy", healthy(None)),
        ("client", client()),
        ("ill", ill()),
        ("mistaken", mistaken),
    ] {
        for width in [80, 200] {
            let text = screen(&facts, Paint::Plain, width);
            assert!(!text.contains('\x1b'), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{line}");
            }
            insta::assert_snapshot!(format!("{name}_{width}"), text);
        }
    }
}

#[test]
fn on_a_terminal_the_verdicts_are_coloured() {
    let text = screen(&ill(), Paint::Coloured, 80);
    for word in [
        "\x1b[1;32mgood\x1b[0m",
        "\x1b[1;31mbad\x1b[0m",
        "\x1b[1;33mwarn\x1b[0m",
    ] {
        assert!(text.contains(word), "{word}");
    }
    assert!(!text.contains("\x1b[31mred"));
}

#[test]
fn the_json_is_the_one_that_is_documented() {
    let facts = ill();
    let findings = judge(&facts);
    let json = render::json(&facts, &findings, Outcome::of(&findings)).expect("JSON");
    insta::assert_snapshot!("json", json.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}
