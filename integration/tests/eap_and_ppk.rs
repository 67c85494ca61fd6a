//! EAP-MSCHAPv2 (RFC 7296 §2.16) and post-quantum pre-shared keys (RFC 8784) on the real kernel:
//! both ends epochgate, and either of them strongSwan.
//!
//! ```text
//! client ─────── router ─────── server
//! 10.1.0.1                      10.2.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::net::Host;
use epochgate_integration::peer::{CLIENT_ID, PSK, SERVER_ID, is_open};
use epochgate_integration::pki::{KeyKind, Pki};
use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_NET};
use epochgate_integration::{Epochgate, StrongSwan, Topology, UdpFlow};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);

const PASSWORD: &str = "correct horse battery staple";
const PPK: &str = "a-post-quantum-key-that-only-tests-use-0123456789";
const PPK_ID: &str = "tests-2026";

fn copy(from: &Path, folder: &Path, name: &str) {
    fs::create_dir_all(folder).expect("its folder");
    fs::copy(from, folder.join(name)).expect("its folder");
}

fn secret(host: &Host, name: &str, contents: &str) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(host.folder().join(name)).expect("its folder");
    file.write_all(contents.as_bytes()).expect("its folder");
}

/// Everything that either program at either end may ask for.
fn network(name: &str) -> Topology {
    let net = Topology::new(name).build();
    let pki = Pki::new(&net.client.folder().join("pki"), KeyKind::Ecdsa);
    let own = pki.of(SERVER_ID);
    for host in [&net.client, &net.server] {
        let folder = host.folder();
        copy(&own.certificate, folder, "own.pem");
        copy(&own.key, folder, "own.key");
        copy(&pki.authority(), folder, "ca.pem");
        copy(&own.certificate, &folder.join("x509"), "own.pem");
        copy(&own.key, &folder.join("private"), "own.key");
        copy(&pki.authority(), &folder.join("x509ca"), "ca.pem");
        secret(host, "users", &format!("bob:other\nalice:{PASSWORD}\n"));
        secret(host, "password", PASSWORD);
        secret(host, "ppk", PPK);
    }
    net
}

fn client(local: &str, remote: &str, more: &str) -> String {
    format!(
        "[tunnel.net]\n\
         role = \"client\"\n\
         local = {{ id = \"{CLIENT_ID}\", {local} }}\n\
         remote = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\"{remote} }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{CLIENT_NET}\"], remote = [\"{SERVER_NET}\"] }}\n\
         ping = {{ target = \"{SERVER_INNER}\" }}\n{more}"
    )
}

fn server(local: &str, remote: &str, more: &str) -> String {
    format!(
        "[tunnel.net]\n\
         role = \"server\"\n\
         local = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\", {local} }}\n\
         remote = {{ id = \"{CLIENT_ID}\"{remote} }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{SERVER_NET}\"], remote = [\"{CLIENT_NET}\"] }}\n{more}"
    )
}

fn eap_client(password: &str) -> String {
    let local = format!("eap-user = \"alice\", eap-password-file = \"{password}\"");
    client(&local, ", ca = [\"ca.pem\"]", "")
}

fn eap_server() -> String {
    server(
        "cert = \"own.pem\", key = \"own.key\"",
        ", eap-users-file = \"users\"",
        "",
    )
}

fn with_ppk(required: bool) -> String {
    format!("ppk = {{ id = \"{PPK_ID}\", file = \"ppk\", required = {required} }}\n")
}

/// swanctl's configuration of an end: how it and the other authenticate, and secrets.
fn strongswan(
    is_server: bool,
    connection: &str,
    local: &str,
    remote: &str,
    secrets: &str,
) -> String {
    let client_end = ("%any", CLIENT_ID, CLIENT_NET);
    let server_end = (SERVER, SERVER_ID, SERVER_NET);
    let (own, other) = if is_server {
        (server_end, client_end)
    } else {
        (client_end, server_end)
    };
    format!(
        "connections {{
    net {{
        version = 2
        local_addrs = {}
        remote_addrs = {}
        {connection}
        local {{
            id = {}
            {local}
        }}
        remote {{
            id = {}
            {remote}
        }}
        children {{
            net {{
                local_ts = {}
                remote_ts = {}
            }}
        }}
    }}
}}
secrets {{
    {secrets}
}}
",
        own.0, other.0, own.1, other.1, own.2, other.2
    )
}

fn eap_secret(user: &str) -> String {
    format!("eap-net {{\n        id = {user}\n        secret = \"{PASSWORD}\"\n    }}")
}

fn ppk_secrets() -> String {
    format!(
        "ike-net {{\n        secret = \"{PSK}\"\n    }}\n    \
         ppk-net {{\n        id = {PPK_ID}\n        secret = \"{PPK}\"\n    }}"
    )
}

#[track_caller]
fn carries(net: &Topology, tunnel: &Epochgate) {
    let from = (&net.client, CLIENT_INNER);
    let flow = UdpFlow::new(from, (&net.server, SERVER_INNER), 4000);
    let sent = flow.count(20).start().finish(SETTLE);
    assert!(sent.lost().is_empty(), "{sent}: {:?}", sent.lost());
    tunnel.wait_for("net", LIMIT, is_open);
}

#[test]
fn a_user_with_a_password_gets_in() {
    let net = network("eap_both");
    let _server = Epochgate::start(&net.server, &eap_server());
    let client = Epochgate::start(&net.client, &eap_client("password"));
    carries(&net, &client);
}

#[test]
fn a_user_with_another_password_brings_nothing_into_the_kernel() {
    let net = network("eap_wrong");
    secret(&net.client, "wrong", "battery horse");
    let server = Epochgate::start(&net.server, &eap_server());
    let client = Epochgate::start(&net.client, &eap_client("wrong"));
    assert!(!client.command(&["up", "net"]).status.success());
    let log = server.log();
    assert!(
        log.contains("password is wrong") && !log.contains("horse"),
        "{log}"
    );
    let mut list = std::process::Command::new("ip");
    let states = net.server.output(list.args(["xfrm", "state"]));
    let states = String::from_utf8_lossy(&states.stdout).into_owned();
    assert!(
        !states.contains("aead") && !states.contains("enc "),
        "{states}"
    );
}

#[test]
fn a_strongswan_server_lets_our_user_in() {
    let net = network("eap_to_ss");
    let local = "auth = pubkey\n            certs = own.pem";
    let remote = "auth = eap-mschapv2\n            eap_id = %any";
    let config = strongswan(true, "", local, remote, &eap_secret("alice"));
    let _server = StrongSwan::start(&net.server, &config);
    let client = Epochgate::start(&net.client, &eap_client("password"));
    carries(&net, &client);
}

#[test]
fn a_strongswan_client_gets_in_as_our_user() {
    let net = network("eap_from_ss");
    let server = Epochgate::start(&net.server, &eap_server());
    // Its user is not its IKE identity: we ask for it.
    let local = "auth = eap-mschapv2\n            eap_id = alice";
    let remote = "auth = pubkey\n            cacerts = ca.pem";
    let config = strongswan(false, "", local, remote, &eap_secret("alice"));
    let client = StrongSwan::start(&net.client, &config);
    client.initiate();
    carries(&net, &server);
}

#[test]
fn both_ends_use_their_post_quantum_key() {
    let net = network("ppk_both");
    let psk = "psk-file = \"psk\"";
    let _server = Epochgate::start(&net.server, &server(psk, "", &with_ppk(true)));
    let client = Epochgate::start(&net.client, &client(psk, "", &with_ppk(true)));
    carries(&net, &client);
}

#[test]
fn a_strongswan_server_uses_our_post_quantum_key() {
    let net = network("ppk_to_ss");
    let connection = format!("ppk_id = {PPK_ID}\n        ppk_required = yes");
    let config = strongswan(
        true,
        &connection,
        "auth = psk",
        "auth = psk",
        &ppk_secrets(),
    );
    let _server = StrongSwan::start(&net.server, &config);
    let client = Epochgate::start(
        &net.client,
        &client("psk-file = \"psk\"", "", &with_ppk(true)),
    );
    carries(&net, &client);
}

#[test]
fn a_strongswan_client_uses_our_post_quantum_key() {
    let net = network("ppk_from_ss");
    let server = Epochgate::start(
        &net.server,
        &server("psk-file = \"psk\"", "", &with_ppk(true)),
    );
    let connection = format!("ppk_id = {PPK_ID}\n        ppk_required = yes");
    let config = strongswan(
        false,
        &connection,
        "auth = psk",
        "auth = psk",
        &ppk_secrets(),
    );
    let client = StrongSwan::start(&net.client, &config);
    client.initiate();
    carries(&net, &server);
}

#[test]
fn a_strongswan_server_without_the_key_is_accepted_where_none_is_required() {
    let net = network("ppk_none");
    let secrets = format!("ike-net {{\n        secret = \"{PSK}\"\n    }}");
    let config = strongswan(true, "", "auth = psk", "auth = psk", &secrets);
    let _server = StrongSwan::start(&net.server, &config);
    let client = Epochgate::start(
        &net.client,
        &client("psk-file = \"psk\"", "", &with_ppk(false)),
    );
    carries(&net, &client);
}
