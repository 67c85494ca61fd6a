//! `epochgate doctor` on hosts that are broken for real, one way after the other: what it finds, how
//! it exits, and that doing what it says mends it.
//!
//! ```text
//! client (10.1.0.1) ─────── router ─────── server (10.2.0.1)
//! ```
#![cfg(feature = "kernel")]
#![allow(clippy::panic, reason = "helpers of tests")]

use epochgate_integration::peer::{
    built, client_config, is_open, policies, server_config, strongswan_server, write_configuration,
};
use epochgate_integration::topology::{CLIENT_INNER, SERVER, SERVER_INNER};
use epochgate_integration::{Epochgate, Host, ManualTunnel, StrongSwan, Topology};
use serde_json::Value;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Exit codes, as `epochgate doctor --help` lists them.
const CAN_WORK: i32 = 0;
const CANNOT_WORK: i32 = 1;
const UNKNOWN: i32 = 4;

/// What the doctor said.
struct Report {
    exit: i32,
    json: Value,
}

impl Report {
    fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().expect("a list")
    }

    /// The findings of a check with this verdict.
    fn of(&self, check: &str, verdict: &str) -> Vec<&Value> {
        let findings = self.findings().iter();
        findings
            .filter(|finding| finding["check"] == check && finding["verdict"] == verdict)
            .collect()
    }

    #[track_caller]
    fn one(&self, check: &str, verdict: &str) -> &Value {
        match self.of(check, verdict).first() {
            Some(finding) => finding,
            None => panic!("no {verdict} {check} in {:#}", self.json),
        }
    }

    fn bad(&self) -> Vec<&Value> {
        let findings = self.findings().iter();
        findings.filter(|f| f["verdict"] == "bad").collect()
    }
}

fn run(host: &Host, arguments: &[&str]) -> Output {
    let socket = host.folder().join("control.sock");
    let mut command = Command::new(built("epochgate"));
    host.output(command.arg("--socket").arg(socket).args(arguments))
}

fn report(output: &Output) -> Report {
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    Report {
        exit: output.status.code().expect("an exit code"),
        json,
    }
}

fn doctor(host: &Host, config: &Path) -> Report {
    let config = config.to_str().expect("UTF-8");
    let templates = policies();
    let templates = templates.to_str().expect("UTF-8");
    report(&run(
        host,
        &[
            "doctor",
            "--json",
            "--config",
            config,
            "--policies",
            templates,
        ],
    ))
}

/// The command in a cure: what stands behind the colon of a sentence, or all of it.
fn command_of(cure: &str) -> &str {
    let sentence = ["or, in front of it: ", "stop it: "];
    sentence
        .iter()
        .find_map(|beginning| cure.strip_prefix(beginning))
        .unwrap_or(cure)
}

/// Does what a finding says, `which` of its cures.
#[track_caller]
fn follow(host: &Host, finding: &Value, which: usize) {
    let cure = finding["cure"][which].as_str().expect("a cure");
    let mut shell = Command::new("sh");
    // The one thing that only the operator knows here.
    let command = command_of(cure).replace("GATEWAY", "192.0.2.1");
    let output = host.output(shell.args(["-c", &command]));
    assert!(
        output.status.success(),
        "{cure}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A way to break a client, what must be found, and which cure is to be followed.
struct Breakage {
    /// Shell commands.
    by: &'static str,
    check: &'static str,
    verdict: &'static str,
    /// What the summary must contain.
    said: &'static str,
    cure: usize,
    /// What takes away what the cure leaves.
    after: &'static str,
}

const BREAKAGES: [Breakage; 12] = [
    Breakage {
        by: "nft add table inet t; \
             nft 'add chain inet t in { type filter hook input priority 0; policy accept; }'; \
             nft add rule inet t in meta l4proto esp counter drop",
        check: "firewall.esp",
        verdict: "bad",
        said: "table inet t, chain in, rule handle",
        cure: 0,
        after: "nft delete table inet t",
    },
    Breakage {
        by: "nft add table inet t; \
             nft 'add chain inet t in { type filter hook input priority 0; policy drop; }'; \
             nft add rule inet t in udp dport 4500 accept; \
             nft add rule inet t in meta l4proto '{ esp, icmp }' accept",
        check: "firewall.ike",
        verdict: "bad",
        said: "the policy of table inet t, chain in",
        cure: 0,
        after: "nft delete table inet t",
    },
    Breakage {
        by: "iptables -A OUTPUT -p udp --sport 500 -j DROP",
        check: "firewall.ike",
        verdict: "bad",
        said: "dropped by",
        cure: 0,
        after: "iptables -F OUTPUT",
    },
    Breakage {
        by: "iptables -P FORWARD DROP",
        check: "firewall.forward",
        verdict: "bad",
        said: "chain FORWARD",
        cure: 0,
        after: "iptables -P FORWARD ACCEPT; iptables -F FORWARD",
    },
    Breakage {
        by: "nft add table ip n; \
             nft 'add chain ip n post { type nat hook postrouting priority 100; }'; \
             nft add rule ip n post oifname router masquerade",
        check: "firewall.source-nat",
        verdict: "bad",
        said: "may leave in clear: table ip n, chain post",
        cure: 1,
        after: "nft delete table ip n",
    },
    Breakage {
        by: "sysctl -w net.ipv4.ip_forward=0",
        check: "settings.forwarding-ipv4",
        verdict: "bad",
        said: "10.1.0.0/16 is more than this host",
        cure: 0,
        after: "true",
    },
    Breakage {
        by: "sysctl -w net.ipv4.conf.router.disable_xfrm=1",
        check: "settings.disable-xfrm",
        verdict: "bad",
        said: "net.ipv4.conf.router.disable_xfrm is on",
        cure: 0,
        after: "true",
    },
    Breakage {
        by: "sysctl -w net.ipv4.conf.all.disable_policy=1",
        check: "settings.disable-policy",
        verdict: "bad",
        said: "net.ipv4.conf.all.disable_policy is on",
        cure: 0,
        after: "true",
    },
    Breakage {
        by: "ip link add wan2 type dummy; ip link set wan2 up; \
             ip addr add 198.51.100.2/24 dev wan2; \
             ip route add default via 198.51.100.1 metric 500; \
             sysctl -w net.ipv4.conf.wan2.rp_filter=1",
        check: "settings.rp-filter",
        verdict: "warn",
        said: "rp_filter is strict on wan2",
        cure: 0,
        after: "ip link del wan2",
    },
    Breakage {
        by: "ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 9 \
             tmpl src 192.0.2.2 dst 203.0.113.1 proto esp reqid 7 mode tunnel",
        check: "policies.conflict",
        verdict: "bad",
        said: "somebody else has the tunnel's policy already",
        cure: 0,
        after: "true",
    },
    Breakage {
        by: "ip xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 dir out priority 9 action block",
        check: "policies.conflict",
        verdict: "bad",
        said: "comes before the tunnel's",
        cure: 0,
        after: "true",
    },
    Breakage {
        by: "ip route replace unreachable 203.0.113.0/24",
        check: "path.route",
        verdict: "bad",
        said: "no route to the peer 203.0.113.1",
        cure: 0,
        after: "ip route flush 203.0.113.1; ip route del unreachable 203.0.113.0/24",
    },
];

#[test]
fn a_tunnel_opens_where_the_doctor_finds_nothing_and_the_kernel_is_as_it_was() {
    let net = Topology::new("doctor_healthy").build();
    let config = write_configuration(&net.client, &client_config(""));
    let before = net.client.run("ip xfrm policy list");

    let found = doctor(&net.client, &config);

    assert_eq!(found.exit, CAN_WORK, "{:#}", found.json);
    assert_eq!(found.bad(), Vec::<&Value>::new());
    assert_eq!(found.json["schema"], 1);
    assert_eq!(found.json["outcome"], "can-work");
    for check in ["kernel.esp-ipv4", "kernel.ciphers", "ports.500", "path.mtu"] {
        found.one(check, "good");
    }
    assert_eq!(net.client.run("ip xfrm policy list"), before);
    assert_eq!(net.client.run("ip xfrm state list"), "");
    assert_eq!(net.client.run("nft list ruleset"), "");

    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"always\""));
    for daemon in [&client, &server] {
        daemon.wait_for("net", OPEN_LIMIT, is_open);
    }
}

#[test]
fn each_breakage_is_found_and_doing_what_is_said_mends_it() {
    let net = Topology::new("doctor_breakages").build();
    let host = &net.client;
    let config = write_configuration(host, &client_config(""));
    let shell = |commands: &str| {
        let mut shell = Command::new("sh");
        let output = host.output(shell.args(["-ec", commands]));
        assert!(
            output.status.success(),
            "{commands}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    for breakage in &BREAKAGES {
        println!("{}", breakage.by);
        assert_eq!(doctor(host, &config).exit, CAN_WORK, "before it");
        shell(breakage.by);

        let broken = doctor(host, &config);

        let finding = broken.one(breakage.check, breakage.verdict);
        let summary = finding["summary"].as_str().expect("text");
        println!("  {summary}");
        assert!(summary.contains(breakage.said), "{summary}");
        let expected = match breakage.verdict {
            "bad" => CANNOT_WORK,
            _ => CAN_WORK,
        };
        assert_eq!(broken.exit, expected, "{:#}", broken.json);
        for finding in broken.of(breakage.check, breakage.verdict) {
            println!("  -> {}", finding["cure"][breakage.cure]);
            follow(host, finding, breakage.cure);
        }

        let mended = doctor(host, &config);

        let left = mended.of(breakage.check, breakage.verdict);
        assert_eq!(left, Vec::<&Value>::new());
        assert_eq!(mended.exit, CAN_WORK, "{:#}", mended.json);
        shell(breakage.after);
    }
}

#[test]
fn whoever_has_the_port_is_named() {
    let net = Topology::new("doctor_ports").build();
    let config = write_configuration(&net.client, &client_config(""));
    let socket = net
        .client
        .within(|| UdpSocket::bind("0.0.0.0:500").expect("a free port"));

    let found = doctor(&net.client, &config);

    assert_eq!(found.exit, CANNOT_WORK);
    let summary = found.one("ports.500", "bad")["summary"].to_string();
    let pid = format!("(pid {})", std::process::id());
    assert!(summary.contains(&pid), "{summary}");
    found.one("ports.4500", "good");
    drop(socket);
    assert_eq!(doctor(&net.client, &config).exit, CAN_WORK);

    let charon = StrongSwan::start(&net.server, &strongswan_server(""));
    let config = write_configuration(&net.server, &server_config(""));
    let found = doctor(&net.server, &config);
    assert_eq!(found.exit, CANNOT_WORK);
    let finding = found.one("ports.500", "bad");
    assert!(finding["summary"].to_string().contains("charon-systemd"));
    assert_eq!(finding["cure"][0], "systemctl disable --now strongswan");
    found.one("daemons.others", "warn");
    charon.stop();
    assert_eq!(doctor(&net.server, &config).exit, CAN_WORK);
}

#[test]
fn beside_a_running_daemon_its_ports_are_its_own_and_its_setting_is_watched() {
    let net = Topology::new("doctor_daemon").build();
    let daemon = Epochgate::start(&net.client, &client_config(""));
    let config = net.client.folder().join("epochgate.toml");

    let found = doctor(&net.client, &config);

    assert_eq!(found.exit, CAN_WORK, "{:#}", found.json);
    let summary = found.one("ports.500", "good")["summary"].to_string();
    let holder = format!("epochgated (pid {})", daemon.pid());
    assert!(summary.contains(&holder), "{summary}");
    found.one("privileges.daemon", "good");
    found.one("daemon.running", "good");
    found.one("policies.conflict", "good");

    net.client.sysctl("net/core/xfrm_larval_drop", "1");
    let found = doctor(&net.client, &config);
    assert_eq!(found.exit, CANNOT_WORK);
    follow(&net.client, found.one("settings.larval-drop", "bad"), 0);
    assert_eq!(doctor(&net.client, &config).exit, CAN_WORK);
}

#[test]
fn the_size_that_is_said_to_fit_is_the_largest_that_passes() {
    let net = Topology::new("doctor_mtu").build();
    let more = "start = \"always\"\nalgorithms = { esp = { cipher = [\"aes256gcm16\"] } }\nnat-t = \"off\"";
    let server = Epochgate::start(&net.server, &server_config("nat-t = \"off\""));
    let client = Epochgate::start(&net.client, &client_config(more));
    for daemon in [&client, &server] {
        daemon.wait_for("net", OPEN_LIMIT, is_open);
    }
    let config = net.client.folder().join("epochgate.toml");
    for (changes, verdict, fits) in [
        (&["ip link show router"][..], "good", 1446),
        (
            &["ip route replace 203.0.113.1 via 192.0.2.1 mtu 1400"],
            "good",
            1346,
        ),
        (
            &["ip route del 203.0.113.1", "ip link set router mtu 1280"],
            "warn",
            1226,
        ),
    ] {
        for change in changes {
            net.client.run(change);
        }

        let found = doctor(&net.client, &config);

        assert_eq!(found.exit, CAN_WORK, "{:#}", found.json);
        let summary = found.one("path.mtu", verdict)["summary"].to_string();
        println!("{summary}");
        assert!(
            summary.contains(&format!("packets of {fits} octets")),
            "{summary}"
        );
        // IPv4 and ICMP headers take 28 octets.
        for (size, passes) in [(fits, true), (fits + 1, false)] {
            let mut ping = Command::new("ping");
            ping.args([
                "-M",
                "do",
                "-c",
                "1",
                "-W",
                "5",
                "-s",
                &(size - 28).to_string(),
            ]);
            let output = net
                .client
                .output(ping.args(["-I", CLIENT_INNER, SERVER_INNER]));
            assert_eq!(output.status.success(), passes, "{size}: {output:?}");
        }
    }
}

/// Packets that the host has dropped by source validation.
fn dropped_by_rp_filter(host: &Host) -> u64 {
    let text = host
        .within(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))
        .expect("counters");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = lines.next().expect("names").split_whitespace();
    let mut values = names.zip(lines.next().expect("values").split_whitespace());
    let counter = values.find(|(name, _)| *name == "IPReversePathFilter");
    counter.expect("the counter").1.parse().expect("a number")
}

#[test]
fn strict_source_validation_drops_esp_on_a_strange_way_and_spares_what_was_decrypted() {
    let net = Topology::new("doctor_rp_filter").build();
    let config = write_configuration(&net.client, &client_config(""));
    let _tunnel = ManualTunnel::start(&net);
    for scope in ["all", "router"] {
        let key = format!("net/ipv4/conf/{scope}/rp_filter");
        net.client.sysctl(&key, "1");
    }
    // The way back to what comes out of the tunnel is not the way that it came.
    net.client
        .run("ip route add 10.18.0.1 dev lan src 10.17.0.1");
    net.client.run("ping -c 1 -W 5 -I 10.17.0.1 10.18.0.1");
    assert_eq!(dropped_by_rp_filter(&net.client), 0);
    assert!(
        doctor(&net.client, &config)
            .of("settings.rp-filter", "warn")
            .is_empty()
    );

    // Now neither is the way back to the peer.
    net.client.run("ip route add 203.0.113.1 dev lan");
    let ping = || {
        let mut ping = Command::new("ping");
        ping.args(["-c", "1", "-W", "1", "-I", "10.18.0.1", "10.17.0.1"]);
        net.server.output(&mut ping);
        dropped_by_rp_filter(&net.client)
    };
    let strict = ping();
    assert!(strict > 0, "ESP is dropped");
    let found = doctor(&net.client, &config);
    follow(&net.client, found.one("settings.rp-filter", "warn"), 0);
    assert_eq!(ping(), strict, "ESP is no longer dropped");
    assert!(
        doctor(&net.client, &config)
            .of("settings.rp-filter", "warn")
            .is_empty()
    );
}

#[test]
fn a_user_without_privileges_is_told_what_he_may_not_see() {
    let net = Topology::new("doctor_nobody").build();
    let program = built("epochgate");
    let socket = net.client.folder().join("control.sock");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .arg("--socket")
        .arg(socket)
        .args(["doctor", "--json"]);

    let found = report(&net.client.output(&mut command));

    assert_eq!(found.exit, UNKNOWN, "{:#}", found.json);
    assert_eq!(found.bad(), Vec::<&Value>::new());
    for check in ["firewall.unread", "policies.read"] {
        assert_eq!(
            found.one(check, "unknown")["cure"][0],
            "sudo epochgate doctor"
        );
    }
    // A user namespace is enough to ask the kernel.
    found.one("kernel.esp-ipv4", "good");
}

#[test]
fn an_answer_to_clients_pings_is_a_servers_duty() {
    let net = Topology::new("doctor_echo").build();
    net.server.sysctl("net/ipv4/icmp_echo_ignore_all", "1");
    let config = write_configuration(&net.server, &server_config(""));
    let found = doctor(&net.server, &config);
    assert_eq!(found.exit, CANNOT_WORK);
    follow(&net.server, found.one("settings.echo", "bad"), 0);
    assert_eq!(doctor(&net.server, &config).exit, CAN_WORK);
}

#[test]
fn the_text_for_a_person_names_the_tunnel_the_rule_and_the_cure() {
    let net = Topology::new("doctor_text").build();
    let config = write_configuration(&net.client, &client_config(""));
    net.client.nft(
        "table ip t {\nchain in {\ntype filter hook input priority 0; policy accept;\n\
         ip saddr 203.0.113.1 meta l4proto esp drop\n}\n}\n",
    );
    let templates = policies();
    let output = run(
        &net.client,
        &[
            "doctor",
            "net",
            "--config",
            config.to_str().expect("UTF-8"),
            "--policies",
            templates.to_str().expect("UTF-8"),
        ],
    );
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert_eq!(output.status.code(), Some(CANNOT_WORK));
    assert!(text.contains(&format!(
        "net: ESP (protocol 50) from {SERVER} is dropped by table ip t"
    )));
    assert!(text.contains("-> nft insert rule ip t in meta l4proto esp accept"));
    assert!(text.contains("A tunnel can't work: 1 bad"));
    assert!(!text.contains('\x1b'), "a pipe has no colours");
    assert!(output.stderr.is_empty());
}
