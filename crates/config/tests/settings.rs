//! Right configurations: what they become, and what they are when little is said.

mod common;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use common::{Memory, SECRET};
use epochgate_config::keys::REPLAY_WINDOW;
use epochgate_config::{DaemonSettings, Loaded, LogLevel, load};
use epochgate_controller::config::{
    AuthConfig, EspSuite, HalfOpenConfig, Identity, IkeSuite, LocalAuth, NatTraversal, OnStop,
    Proof, RecoveryConfig, RemoteAuth, Role, ServerRekey, Start, TunnelConfig,
};
use epochgate_controller::crypto::{Cipher, Group, Prf};
use epochgate_controller::pki::RsaPadding;

type Outcome = Result<(), Box<dyn Error>>;

fn loaded(text: &str) -> Result<Loaded, Box<dyn Error>> {
    Ok(load("test.toml", text, &Memory::default())?)
}

fn only_tunnel(text: &str) -> Result<Arc<TunnelConfig>, Box<dyn Error>> {
    let mut tunnels = loaded(text)?.config.tunnels;
    assert_eq!(tunnels.len(), 1);
    Ok(tunnels.remove(0))
}

fn shown(networks: &[ipnet::IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

const SMALLEST: &str = r#"
[tunnel.branch]
role    = "client"
local   = { id = "branch.example", psk-file = "/good.psk" }
remote  = { address = "203.0.113.1" }
policy  = "site-to-site"
traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }
"#;

#[test]
fn the_smallest_tunnel_has_good_defaults() -> Outcome {
    let tunnel = only_tunnel(SMALLEST)?;
    assert_eq!(&*tunnel.name.0, "branch");
    assert_eq!(tunnel.role, Role::Client);
    assert_eq!(tunnel.local.address, None);
    assert_eq!(tunnel.local.id, Identity::Fqdn("branch.example".into()));
    assert_eq!(tunnel.remote.address, Some("203.0.113.1".parse()?));
    assert_eq!(tunnel.remote.id, Identity::Address("203.0.113.1".parse()?));
    assert_eq!(tunnel.auth, AuthConfig::psk(SECRET.as_bytes().into()));
    assert_eq!(tunnel.start, Start::OnDemand);
    assert_eq!(tunnel.nat_traversal, NatTraversal::Auto);
    assert_eq!(tunnel.on_stop, OnStop::Block);
    assert_eq!(tunnel.path.fragment_size, Some(1280));
    assert!(tunnel.path.mobike);
    assert_eq!(tunnel.path.nat_keepalive, Some(Duration::from_secs(20)));
    assert_eq!(tunnel.ping.source, None);
    assert_eq!(tunnel.ping.target, None);
    assert_eq!(tunnel.ping.interval, Duration::from_millis(250));
    assert_eq!(tunnel.ping.attempts, 4);
    assert_eq!(tunnel.ping.idle, Duration::from_secs(3));
    assert_eq!(tunnel.ping.proof, Proof::Icmp);
    assert_eq!(tunnel.epoch.lifetime, Duration::from_secs(3600));
    assert!(tunnel.epoch.wait);
    assert_eq!(tunnel.epoch.drain, Duration::from_secs(2));
    assert_eq!(tunnel.epoch.server_rekey, ServerRekey::Accept);
    assert_eq!(tunnel.recovery, RecoveryConfig::default());
    assert_eq!(tunnel.ike_sa.lifetime, Duration::from_secs(4 * 3600));
    assert_eq!(tunnel.ike_sa.reauthenticate, None);
    assert_eq!(tunnel.ike, IkeSuite::default());
    assert_eq!(tunnel.esp, EspSuite::default());
    assert_eq!(tunnel.esp.replay_window, REPLAY_WINDOW.default);
    assert_eq!(tunnel.template.name, "site-to-site");
    Ok(())
}

#[test]
fn everything_that_is_said_is_heard() -> Outcome {
    let loaded = loaded(
        r#"
[daemon]
socket = "/run/eg/ctl"
state-dir = "/run/eg"
policies = "/etc/eg/policies"
log = "debug"

[ike]
cookie-threshold = 0
half-open-max = 5000
half-open-per-address = 7
half-open-lifetime = "1m"

[tunnel.hq]
role = "server"
local = { address = "2001:db8::1", id = "keyid:0a0b", psk-file = "/crlf.psk" }
remote = { address = "%any", id = "joe@branch.example" }
policy = "site-to-site"
start = "listen"
nat-t = "off"
on-stop = "remove"

[tunnel.hq.traffic]
local = ["10.2.0.0/16", "2001:db8:2::/48"]
remote = ["10.1.0.7", "2001:db8:1::/48"]

[tunnel.hq.ping]
source = "10.2.0.1"
target = "10.1.0.7"
interval = "1s"
attempts = 7
idle = "1m"

[tunnel.hq.epoch]
lifetime = "10m"
wait = false
drain = "500ms"

[tunnel.hq.algorithms]
ike = { cipher = ["aes128gcm16"], prf = ["hmac-sha512", "hmac-sha256"], group = ["p384"] }
esp = { cipher = ["aes128gcm16"], group = [] }
"#,
    )?;
    let daemon = DaemonSettings {
        socket: "/run/eg/ctl".into(),
        state_dir: "/run/eg".into(),
        policies: "/etc/eg/policies".into(),
        log: LogLevel::Debug,
    };
    assert_eq!(loaded.daemon, daemon);
    let half_open = HalfOpenConfig {
        cookie_threshold: 0,
        max: 5000,
        per_address_max: 7,
        lifetime: Duration::from_secs(60),
    };
    assert_eq!(loaded.config.half_open, half_open);
    let tunnel = &loaded.config.tunnels[0];
    assert_eq!(tunnel.role, Role::Server);
    assert_eq!(tunnel.local.id, Identity::KeyId(vec![0x0a, 0x0b]));
    assert_eq!(tunnel.remote.address, None);
    assert_eq!(
        tunnel.remote.id,
        Identity::Mail("joe@branch.example".into())
    );
    assert_eq!(tunnel.auth, AuthConfig::psk(SECRET.as_bytes().into()));
    assert_eq!(
        shown(&tunnel.local_traffic),
        ["10.2.0.0/16", "2001:db8:2::/48"]
    );
    assert_eq!(
        shown(&tunnel.remote_traffic),
        ["10.1.0.7/32", "2001:db8:1::/48"]
    );
    assert_eq!(tunnel.start, Start::Listen);
    assert_eq!(tunnel.nat_traversal, NatTraversal::Off);
    assert_eq!(tunnel.on_stop, OnStop::Remove);
    assert_eq!(tunnel.ping.source, Some("10.2.0.1".parse()?));
    assert_eq!(tunnel.ping.target, Some("10.1.0.7".parse()?));
    assert_eq!(tunnel.ping.interval, Duration::from_secs(1));
    assert_eq!(tunnel.ping.attempts, 7);
    assert_eq!(tunnel.ping.idle, Duration::from_secs(60));
    assert_eq!(tunnel.epoch.lifetime, Duration::from_secs(600));
    assert!(!tunnel.epoch.wait);
    assert_eq!(tunnel.epoch.drain, Duration::from_millis(500));
    assert_eq!(tunnel.ike.ciphers, [Cipher::AesGcm128]);
    assert_eq!(tunnel.ike.prfs, [Prf::HmacSha512, Prf::HmacSha256]);
    assert_eq!(tunnel.ike.groups, [Group::P384]);
    assert_eq!(tunnel.esp.ciphers, [Cipher::AesGcm128]);
    assert!(tunnel.esp.groups.is_empty());
    Ok(())
}

#[test]
fn a_client_that_ignores_its_server_and_takes_any_packet_for_a_proof() -> Outcome {
    let text = format!(
        "{SMALLEST}ping = {{ proof = \"any-inbound\" }}\nepoch = {{ server-rekey = \"ignore\" }}\n\
         recovery = {{ back-off = \"100ms\", back-off-max = \"1m\" }}\n"
    );
    let tunnel = only_tunnel(&text)?;
    assert_eq!(tunnel.ping.proof, Proof::AnyInbound);
    assert_eq!(tunnel.epoch.server_rekey, ServerRekey::Ignore);
    let recovery = RecoveryConfig {
        back_off: Duration::from_millis(100),
        back_off_max: Duration::from_secs(60),
    };
    assert_eq!(tunnel.recovery, recovery);
    Ok(())
}

#[test]
fn a_server_listens_and_one_line_end_of_its_secret_is_not_part_of_it() -> Outcome {
    let text = SMALLEST
        .replace("client", "server")
        .replace("/good.psk", "/two-line-ends.psk");
    let tunnel = only_tunnel(&text)?;
    assert_eq!(tunnel.start, Start::Listen);
    assert_eq!(
        tunnel.auth,
        AuthConfig::psk(format!("{SECRET}\n").as_bytes().into())
    );
    Ok(())
}

#[test]
fn an_empty_file_is_a_daemon_without_tunnels() -> Outcome {
    let loaded = loaded("")?;
    assert!(loaded.config.tunnels.is_empty());
    assert_eq!(loaded.daemon, DaemonSettings::default());
    assert_eq!(loaded.config.half_open, HalfOpenConfig::default());
    Ok(())
}

#[test]
fn two_hosts_need_no_traffic_of_their_own() -> Outcome {
    let tunnel = only_tunnel(
        r#"
[tunnel.pair]
role = "client"
local = { address = "198.51.100.7", psk-file = "/good.psk" }
remote = { address = "203.0.113.1" }
policy = "host-to-host"
"#,
    )?;
    assert_eq!(shown(&tunnel.local_traffic), ["198.51.100.7/32"]);
    assert_eq!(shown(&tunnel.remote_traffic), ["203.0.113.1/32"]);
    assert!(!tunnel.template.forward);
    assert!(!tunnel.template.routes);
    Ok(())
}

#[test]
fn a_road_warrior_sends_everything_of_its_ip_versions() -> Outcome {
    let text = SMALLEST
        .replace("site-to-site", "road-warrior")
        .replace(r#", remote = ["10.2.0.0/16"]"#, "");
    let tunnel = only_tunnel(&text)?;
    assert_eq!(shown(&tunnel.remote_traffic), ["0.0.0.0/0"]);
    let both = text.replace(r#""10.1.0.0/16""#, r#""10.9.0.5", "fd00::5""#);
    let tunnel = only_tunnel(&both)?;
    assert_eq!(shown(&tunnel.remote_traffic), ["0.0.0.0/0", "::/0"]);
    let server = SMALLEST
        .replace("client", "server")
        .replace("site-to-site", "road-warrior")
        .replace(r#"local = ["10.1.0.0/16"], "#, "");
    let tunnel = only_tunnel(&server)?;
    assert_eq!(shown(&tunnel.local_traffic), ["0.0.0.0/0"]);
    Ok(())
}

#[test]
fn a_template_in_the_directory_comes_before_a_built_in_one() -> Outcome {
    let files =
        Memory::default().with_template("site-to-site", "forward = false\npriority = 5000\n");
    let loaded = load("test.toml", SMALLEST, &files)?;
    let template = &loaded.config.tunnels[0].template;
    assert_eq!(template.priority, 5000);
    assert!(!template.forward);
    assert!(template.routes, "a default");
    Ok(())
}

#[test]
fn every_built_in_template_is_right_and_describes_itself() -> Outcome {
    for (name, text) in epochgate_config::template::BUILT_IN {
        let template = epochgate_config::template::parse(name, name, text)?;
        assert!(!template.description.is_empty(), "{name}");
    }
    Ok(())
}

#[test]
fn tunnels_come_in_the_order_of_the_file() -> Outcome {
    let second = SMALLEST
        .replace("[tunnel.branch]", "[tunnel.annex]")
        .replace("203.0.113.1", "203.0.113.2")
        .replace("10.2.", "10.3.");
    let loaded = loaded(&format!("{SMALLEST}{second}"))?;
    let names: Vec<_> = loaded
        .config
        .tunnels
        .iter()
        .map(|t| t.name.to_string())
        .collect();
    assert_eq!(names, ["branch", "annex"]);
    Ok(())
}

#[test]
fn a_secret_is_in_no_debug_output() -> Outcome {
    let loaded = loaded(SMALLEST)?;
    assert!(!format!("{loaded:?}").contains(SECRET));
    Ok(())
}

#[test]
fn tunnels_with_the_same_two_ends_may_stand_side_by_side() -> Outcome {
    let annex = SMALLEST
        .replace("branch]", "annex]")
        .replace("10.1.0.0", "10.7.0.0")
        .replace("10.2.0.0", "10.8.0.0");
    let tunnels = loaded(&format!("{SMALLEST}{annex}"))?.config.tunnels;
    assert_eq!(tunnels.len(), 2);
    assert!(tunnels[0].shares_peer_with(&tunnels[1]));
    Ok(())
}

#[test]
fn an_ike_sa_lives_and_is_authenticated_anew_as_told() -> Outcome {
    let told =
        format!("{SMALLEST}\n[tunnel.branch.ike]\nlifetime = \"8h\"\nreauthenticate = \"1d\"\n");
    let tunnel = only_tunnel(&told)?;
    assert_eq!(tunnel.ike_sa.lifetime, Duration::from_secs(8 * 3600));
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(tunnel.ike_sa.reauthenticate, Some(day));
    let never = told.replace("1d", "never");
    assert_eq!(only_tunnel(&never)?.ike_sa.reauthenticate, None);
    Ok(())
}

#[test]
fn a_client_may_ask_for_its_address_and_a_server_give_it_from_a_pool() -> Outcome {
    let client = SMALLEST.replace("site-to-site", "road-warrior").replace(
        r#"traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }"#,
        r#"virtual = { request = ["ipv4", "ipv6"] }"#,
    );
    let tunnel = only_tunnel(&client)?;
    let request = tunnel.addressing.request().ok_or("no request")?;
    assert!(request.ipv4 && request.ipv6);
    assert_eq!(request.interface, "lo");
    assert_eq!(tunnel.start, Start::Always);
    assert_eq!(shown(&tunnel.local_traffic), ["0.0.0.0/0", "::/0"]);
    assert_eq!(shown(&tunnel.remote_traffic), ["0.0.0.0/0", "::/0"]);
    let server = loaded(
        r#"
[pool.staff]
networks = ["10.99.0.0/24", "2001:db8:99::/64"]
dns = ["10.2.0.53"]
domains = ["HQ.example."]

[tunnel.laptop]
role = "server"
local = { address = "203.0.113.1", psk-file = "/good.psk" }
remote = { id = "laptop.example" }
policy = "site-to-site"
traffic = { local = ["10.2.0.0/16", "2001:db8:2::/48"] }
virtual = { pools = ["staff"] }
"#,
    )?;
    let tunnel = &server.config.tunnels[0];
    assert!(tunnel.remote_traffic.is_empty());
    let pools = tunnel.addressing.pools().ok_or("no pools")?;
    assert_eq!(
        shown(&pools[0].networks),
        ["10.99.0.0/24", "2001:db8:99::/64"]
    );
    assert_eq!(pools[0].dns, ["10.2.0.53".parse::<std::net::IpAddr>()?]);
    assert_eq!(pools[0].domains, ["hq.example"]);
    Ok(())
}

#[test]
fn certificates_are_read_and_the_subject_is_the_identity_where_none_is_written()
-> Result<(), Box<dyn Error>> {
    let text = r#"
[tunnel.branch]
role    = "client"
local   = { cert = "/gate.pem", key = "/gate.key", signature = "rsa-pkcs1" }
remote  = { address = "203.0.113.1", id = "CN=hq, O=Test", ca = ["/ca.pem"], crl = ["/stale.crl"], stale-crl = "accept" }
policy  = "site-to-site"
traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }
"#;
    let loaded = load("test", text, &Memory::default())?;
    let tunnel = &loaded.config.tunnels[0];
    assert_eq!(tunnel.local.id.to_string(), "CN=gate, O=Test");
    assert_eq!(tunnel.remote.id.to_string(), "CN=hq, O=Test");
    let LocalAuth::Certificate(credential) = &tunnel.auth.local else {
        return Err("no certificate".into());
    };
    assert_eq!(credential.certificates.len(), 1);
    assert_eq!(credential.rsa_padding, RsaPadding::Pkcs1);
    let RemoteAuth::Certificate(authorities) = &tunnel.auth.remote else {
        return Err("no authorities".into());
    };
    assert_eq!(authorities.0.key_hashes().len(), 1);
    Ok(())
}

#[test]
fn two_interfaces_may_carry_the_same_networks() -> Outcome {
    let with = |tunnel: &str, interface: &str| {
        let everything = SMALLEST
            .replace("branch]", &format!("{tunnel}]"))
            .replace("10.1.0.0/16", "0.0.0.0/0")
            .replace("10.2.0.0/16", "0.0.0.0/0");
        format!("{everything}interface = {{ name = \"{interface}\" }}\n")
    };
    let both = with("one", "ipsec0") + &with("two", "ipsec1");
    let tunnels = loaded(&both)?.config.tunnels;
    let shown: Vec<_> = tunnels
        .iter()
        .filter_map(|tunnel| tunnel.interface.as_ref())
        .map(|interface| (interface.name.to_string(), interface.mtu))
        .collect();
    assert_eq!(shown, [("ipsec0".into(), 1400), ("ipsec1".into(), 1400)]);
    Ok(())
}

#[test]
fn users_of_eap_and_post_quantum_keys_are_read() -> Outcome {
    let server = r#"
[tunnel.laptop]
role    = "server"
local   = { address = "203.0.113.1", id = "gate.example", cert = "/gate.pem", key = "/gate.key" }
remote  = { id = "laptop.example", eap-users-file = "/users" }
policy  = "site-to-site"
traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }
"#;
    let tunnel = only_tunnel(server)?;
    let RemoteAuth::Eap(users) = &tunnel.auth.remote else {
        return Err("no users".into());
    };
    let password = users.password("alice").ok_or("no alice")?;
    assert_eq!(password.expose(), SECRET.as_bytes());
    let password = users.password("bob").ok_or("no bob")?;
    assert_eq!(password.expose(), format!("{SECRET}:x").as_bytes());
    assert!(users.password("# staff").is_none());

    let client = SMALLEST
        .replace(
            "psk-file = \"/good.psk\"",
            "eap-user = \"alice\", eap-password-file = \"/good.password\"",
        )
        .replace("\"203.0.113.1\"", "\"203.0.113.1\", ca = [\"/ca.pem\"]");
    let tunnel = only_tunnel(&client)?;
    let LocalAuth::Eap(user) = &tunnel.auth.local else {
        return Err("no user".into());
    };
    assert_eq!(user.name, "alice");
    assert_eq!(user.password.expose(), SECRET.as_bytes());
    assert!(!format!("{tunnel:?}").contains(SECRET));

    let quantum = format!("{SMALLEST}\n[tunnel.branch.ppk]\nid = \"2026\"\nfile = \"/good.ppk\"\n");
    let ppk = only_tunnel(&quantum)?.auth.ppk.clone().ok_or("no key")?;
    assert_eq!(ppk.id, b"2026");
    assert!(ppk.required);
    let optional = format!("{quantum}required = false\n");
    let ppk = only_tunnel(&optional)?.auth.ppk.clone().ok_or("no key")?;
    assert!(!ppk.required);
    Ok(())
}
