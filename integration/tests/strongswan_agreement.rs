//! What epochgate and strongSwan must agree on: each algorithm that both know is used once, and
//! what they do not agree on is named at our end.
//!
//! ```text
//! client ─────── router (masquerades, or not) ─────── server
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::manual::{changed, sample, write_psk};
use epochgate_integration::topology::{CLIENT_NET, SERVER, SERVER_NET};
use epochgate_integration::{Selectors, StrongSwan, Topology, Trace, UdpFlow, audit};
use std::thread;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(15);

/// A tunnel between 10.1.N.0/24 and 10.2.N.0/24, in epochgate's words.
fn tunnel(name: &str, number: u8, algorithms: &str) -> String {
    format!(
        "[tunnel.{name}]\n\
         role = \"client\"\n\
         local = {{ id = \"{name}.example\", psk-file = \"branch.psk\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"hq.example\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"10.1.{number}.0/24\"], remote = [\"10.2.{number}.0/24\"] }}\n\
         ping = {{ target = \"10.2.{number}.1\" }}\n\
         algorithms = {{ {algorithms} }}\n\n"
    )
}

/// The same in strongSwan's.
fn connection(name: &str, number: u8, ike: &str, esp: &str) -> String {
    format!(
        "{name} {{
            version = 2
            local_addrs = {SERVER}
            remote_addrs = %any
            proposals = {ike}
            rekey_time = 0
            local {{
                auth = psk
                id = hq.example
            }}
            remote {{
                auth = psk
                id = {name}.example
            }}
            children {{
                {name} {{
                    local_ts = 10.2.{number}.0/24
                    remote_ts = 10.1.{number}.0/24
                    esp_proposals = {esp}
                    rekey_time = 0
                }}
            }}
        }}\n"
    )
}

fn connections(all: &str) -> String {
    format!(
        "connections {{\n{all}}}\nsecrets {{\nike-all {{\nsecret = \"what branch.psk contains\"\n}}\n}}\n"
    )
}

#[test]
fn every_algorithm_interoperates_and_rekeys() {
    // What is agreed for IKE, and for ESP with a key exchange of its own when it is rekeyed.
    let all = [
        ("sha256", "aes128gcm16", "x25519", "aes128gcm16", None),
        ("sha384", "aes256gcm16", "p256", "aes256gcm16", Some("p256")),
        ("sha512", "aes128gcm16", "p384", "aes128gcm16", Some("p384")),
        (
            "sha256",
            "aes256gcm16",
            "x25519",
            "aes256gcm16",
            Some("x25519"),
        ),
    ];
    let theirs = |group: &str| match group {
        "p256" => "ecp256",
        "p384" => "ecp384",
        _ => "x25519",
    };
    let net = Topology::new("algorithms").masquerade().build();
    let ike_proposals = all.map(|(prf, cipher, group, _, _)| {
        let group = theirs(group);
        format!("{cipher}-prf{prf}-{group}")
    });
    let (mut ours, mut peers) = (String::new(), String::new());
    for (number, (prf, cipher, group, esp, pfs)) in (1..).zip(all) {
        let name = format!("t{number}");
        let esp_group = pfs.map(|group| format!("\"{group}\"")).unwrap_or_default();
        ours += &tunnel(
            &name,
            number,
            &format!(
                "ike = {{ cipher = [\"{cipher}\"], prf = [\"hmac-{prf}\"], group = [\"{group}\"] }}, \
                 esp = {{ cipher = [\"{esp}\"], group = [{esp_group}] }}"
            ),
        );
        let esp = match pfs {
            Some(group) => format!("{esp}-{}", theirs(group)),
            None => esp.to_owned(),
        };
        // strongSwan must answer IKE_SA_INIT before it knows whom.
        peers += &connection(&name, number, &ike_proposals.join(","), &esp);
        for (host, net) in [(&net.client, 1), (&net.server, 2)] {
            host.dummy(&name, &[&format!("10.{net}.{number}.1/24")]);
        }
    }
    let server = StrongSwan::start(&net.server, &connections(&peers));
    let client = net.documented_client(&ours);

    for (number, (prf, cipher, group, esp, pfs)) in (1..).zip(all) {
        let name = format!("t{number}");
        client.run(&["up", &name]);
        client.run(&["rekey", &name]);
        let tunnel = client.wait_for(&name, LIMIT, |tunnel| {
            tunnel["epochs"].as_array().is_some_and(|it| it.len() == 1)
        });
        UdpFlow::new(
            (&net.client, &format!("10.1.{number}.1")),
            (&net.server, &format!("10.2.{number}.1")),
            4000,
        )
        .count(10)
        .start()
        .finish(SETTLE)
        .assert_perfect();
        let suite = tunnel["ike"][0]["suite"].as_str().expect("a suite");
        let used = tunnel["epochs"][0]["cipher"].as_str().expect("a cipher");
        println!("{prf} {cipher} {group}: {suite}; {esp} {pfs:?}: {used}");
        let bits = |cipher: &str| if cipher.contains("256") { "256" } else { "128" };
        assert!(suite.contains(&prf["sha".len()..]), "{suite}");
        assert!(suite.contains(&format!("GCM-{}", bits(cipher))), "{suite}");
        assert!(used.contains(bits(esp)), "{used}");
        // strongSwan tells the key exchange that the newest Child SA was made with.
        let theirs = server.swanctl(&["--list-sas", "--ike", &name]);
        let wanted = match pfs {
            Some("p256") => "/ECP_256",
            Some("p384") => "/ECP_384",
            Some(_) => "/CURVE_25519",
            None => "",
        };
        let wanted = format!("ESP:AES_GCM_16-{}{wanted}", bits(esp));
        assert!(theirs.contains(&wanted), "{wanted} in {theirs}");
    }
}

#[test]
fn what_strongswan_refuses_is_told_with_what_to_mend() {
    let net = Topology::new("refusals").masquerade().build();
    let ike = "aes256gcm16-prfsha256-x25519";
    let peers = connection("psk", 1, ike, "aes256gcm16")
        + &connection("esp", 2, ike, "aes256gcm16")
        + &connection("ts", 3, ike, "aes256gcm16")
        + &connection("ike", 4, ike, "aes256gcm16");
    let server = StrongSwan::start(&net.server, &connections(&peers));
    let ours = tunnel("psk", 1, "").replace("branch.psk", "wrong.psk")
        + &tunnel("esp", 2, "esp = { cipher = [\"aes128gcm16\"] }")
        + &tunnel("ts", 3, "").replace("10.2.3.", "10.2.30.")
        + &tunnel("ike", 4, "ike = { group = [\"p384\"] }");
    let (keys, wire) = (net.client_keys(), net.capture_client());
    write_psk(&net.client, "wrong.psk", "not what the other end has");
    let client = net.documented_client(&ours);

    for (name, wanted) in [
        ("psk", "check psk and ids of tunnel psk on both ends"),
        ("esp", "NO_PROPOSAL_CHOSEN"),
        ("ts", "TS_UNACCEPTABLE"),
        ("ike", "NO_PROPOSAL_CHOSEN"),
    ] {
        let output = client.command(&["up", name]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("up {name}: {text}");
        assert!(!output.status.success());
        assert!(text.contains(wanted), "{wanted} in {text}");
        let status = client.wait_for(name, LIMIT, |_| true);
        let reason = status["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(wanted), "{wanted} in {reason}");
        client.run(&["down", name]);
    }
    // No half of anything stays with strongSwan.
    assert_eq!(server.installed(), 0);
    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &Selectors::new(CLIENT_NET, SERVER_NET))
        .expect("nothing at all");
}

#[test]
fn what_we_refuse_a_strongswan_client_is_in_the_log() {
    let net = Topology::new("refused_client").build();
    let server = net.documented_server(&sample("epochgate-server"));
    let good = changed(&sample("swanctl-client"), "start_action = start", "");
    let client = StrongSwan::start(&net.client, &good);

    for (from, to, theirs, ours) in [
        (
            "secret = \"what branch.psk contains\"",
            "secret = \"not what the other end has\"",
            "AUTHENTICATION_FAILED",
            "branch.example does not know our pre-shared key",
        ),
        (
            "            id = branch.example",
            "            id = other.example",
            "AUTHENTICATION_FAILED",
            "no tunnel has remote id other.example",
        ),
        (
            "proposals = aes256gcm16-prfsha256-x25519",
            "proposals = aes256-sha1-modp1024",
            "NO_PROPOSAL_CHOSEN",
            "its IKE algorithms meet none of ours",
        ),
        (
            "esp_proposals = aes256gcm16-x25519",
            "esp_proposals = aes256-sha1",
            "NO_PROPOSAL_CHOSEN",
            "the peer's ESP algorithms meet none of ours",
        ),
        (
            "remote_ts = 10.2.0.0/16",
            "remote_ts = 10.3.0.0/16",
            "TS_UNACCEPTABLE",
            "the peer's traffic selectors meet none of ours",
        ),
    ] {
        let bad = match from.starts_with("            id") {
            // The secrets name it too.
            true => good.replace("id = branch.example", to.trim_start()),
            false if from.starts_with("proposals") => {
                good.replace(&format!("        {from}"), &format!("        {to}"))
            }
            false => changed(&good, from, to),
        };
        let bad = bad.replace("id-1 = branch.example", "id-1 = other.example");
        client.load(&bad);
        let known = server.log().len();
        let output = client.try_swanctl(&["--initiate", "--child", "branch", "--timeout", "10"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains(theirs), "{theirs} in {told}");
        let log = server.log();
        let new = &log[known..];
        println!("{to}:\n{new}");
        assert!(new.contains(ours), "{ours} in {new}");
        let tunnel = server.wait_for("branch", LIMIT, |_| true);
        assert_eq!(tunnel["gate"], "held");
        let _ = client.try_swanctl(&["--terminate", "--ike", "branch", "--timeout", "5"]);
        // Refusals that strangers can provoke are logged once a second.
        thread::sleep(Duration::from_millis(1_100));
    }

    // And the right one is welcome.
    client.load(&good);
    client.swanctl(&["--initiate", "--child", "branch", "--timeout", "10"]);
    server.wait_for("branch", LIMIT, |tunnel| tunnel["gate"] == "open");
}
