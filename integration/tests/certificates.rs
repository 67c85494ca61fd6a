//! Ends that prove their identities by certificates, on the real kernel.
//!
//! ```text
//! client ─────── router ─────── server
//! 10.1.0.1                      10.2.0.1
//! ```
//!
//! Both ends epochgate, then either of them strongSwan; each kind of key; and a certificate of an
//! authority that nobody knows.
#![cfg(feature = "kernel")]

use epochgate_integration::net::Host;
use epochgate_integration::peer::{CLIENT_ID, SERVER_ID, is_open};
use epochgate_integration::pki::{KeyKind, Pki};
use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_NET};
use epochgate_integration::{Epochgate, Selectors, StrongSwan, Topology, Trace, UdpFlow, audit};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);

fn pki(net: &Topology, name: &str, kind: KeyKind) -> Pki {
    let folder: PathBuf = net.client.folder().join(name);
    Pki::new(&folder, kind)
}

fn copy(from: &Path, folder: &Path, name: &str) {
    fs::create_dir_all(folder).expect("its folder");
    fs::copy(from, folder.join(name)).expect("its folder");
}

/// What epochgate on this host shows and whom it trusts.
fn give(host: &Host, shows: &Pki, trusts: &Pki, id: &str) {
    let own = shows.of(id);
    copy(&own.certificate, host.folder(), "own.pem");
    copy(&own.key, host.folder(), "own.key");
    copy(&trusts.authority(), host.folder(), "ca.pem");
}

/// The same for strongSwan, where `swanctl` looks for it.
fn give_strongswan(host: &Host, pki: &Pki, id: &str) {
    let own = pki.of(id);
    let folder = host.folder();
    copy(&own.certificate, &folder.join("x509"), "own.pem");
    copy(&own.key, &folder.join("private"), "own.key");
    copy(&pki.authority(), &folder.join("x509ca"), "ca.pem");
}

fn client_config() -> String {
    format!(
        "[tunnel.net]\n\
         role = \"client\"\n\
         local = {{ id = \"{CLIENT_ID}\", cert = \"own.pem\", key = \"own.key\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\", ca = [\"ca.pem\"] }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{CLIENT_NET}\"], remote = [\"{SERVER_NET}\"] }}\n\
         ping = {{ target = \"{SERVER_INNER}\" }}\n"
    )
}

fn server_config() -> String {
    format!(
        "[tunnel.net]\n\
         role = \"server\"\n\
         local = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\", cert = \"own.pem\", key = \"own.key\" }}\n\
         remote = {{ id = \"{CLIENT_ID}\", ca = [\"ca.pem\"] }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{SERVER_NET}\"], remote = [\"{CLIENT_NET}\"] }}\n"
    )
}

fn strongswan(local: (&str, &str, &str), remote: (&str, &str, &str)) -> String {
    let (local, local_id, local_net) = local;
    let (remote, remote_id, remote_net) = remote;
    format!(
        "connections {{
    net {{
        version = 2
        local_addrs = {local}
        remote_addrs = {remote}
        local {{
            auth = pubkey
            certs = own.pem
            id = {local_id}
        }}
        remote {{
            auth = pubkey
            cacerts = ca.pem
            id = {remote_id}
        }}
        children {{
            net {{
                local_ts = {local_net}
                remote_ts = {remote_net}
            }}
        }}
    }}
}}
"
    )
}

fn flow(net: &Topology) -> UdpFlow {
    let from = (&net.client, CLIENT_INNER);
    UdpFlow::new(from, (&net.server, SERVER_INNER), 4000)
}

fn both_epochgate(name: &str, kind: KeyKind) {
    let net = Topology::new(name).build();
    let made = pki(&net, "pki", kind);
    give(&net.client, &made, &made, CLIENT_ID);
    give(&net.server, &made, &made, SERVER_ID);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let _server = Epochgate::start(&net.server, &server_config());
    let client = Epochgate::start(&net.client, &client_config());
    let sent = flow(&net).count(50).start().finish(SETTLE);
    assert!(sent.lost().is_empty(), "{sent}: {:?}", sent.lost());
    client.wait_for("net", LIMIT, is_open);
    let trace = Trace::of(wire.stop(), &keys);
    let protected = Selectors::new(CLIENT_NET, SERVER_NET);
    audit::nothing_in_clear(&trace, &protected).expect("all in ESP");
    audit::nothing_before_proof(&trace).expect("held until proven");
}

#[test]
fn both_ends_prove_themselves_by_rsa() {
    both_epochgate("cert_rsa", KeyKind::Rsa);
}

#[test]
fn both_ends_prove_themselves_by_ecdsa() {
    both_epochgate("cert_ecdsa", KeyKind::Ecdsa);
}

#[test]
fn both_ends_prove_themselves_by_ed25519() {
    both_epochgate("cert_ed25519", KeyKind::Ed25519);
}

fn to_strongswan(name: &str, kind: KeyKind) {
    let net = Topology::new(name).build();
    let made = pki(&net, "pki", kind);
    give(&net.client, &made, &made, CLIENT_ID);
    give_strongswan(&net.server, &made, SERVER_ID);
    let _server = StrongSwan::start(
        &net.server,
        &strongswan(
            (SERVER, SERVER_ID, SERVER_NET),
            ("%any", CLIENT_ID, CLIENT_NET),
        ),
    );
    let client = Epochgate::start(&net.client, &client_config());
    let sent = flow(&net).count(50).start().finish(SETTLE);
    assert!(sent.lost().is_empty(), "{sent}: {:?}", sent.lost());
    client.wait_for("net", LIMIT, is_open);
}

#[test]
fn a_strongswan_server_is_believed_and_believes_by_rsa() {
    to_strongswan("cert_ss_rsa", KeyKind::Rsa);
}

#[test]
fn a_strongswan_server_is_believed_and_believes_by_ecdsa() {
    to_strongswan("cert_ss_ecdsa", KeyKind::Ecdsa);
}

#[test]
fn a_strongswan_server_is_believed_and_believes_by_ed25519() {
    to_strongswan("cert_ss_ed25519", KeyKind::Ed25519);
}

fn from_strongswan(name: &str, kind: KeyKind) {
    let net = Topology::new(name).build();
    let made = pki(&net, "pki", kind);
    give(&net.server, &made, &made, SERVER_ID);
    give_strongswan(&net.client, &made, CLIENT_ID);
    let server = Epochgate::start(&net.server, &server_config());
    let client = StrongSwan::start(
        &net.client,
        &strongswan(
            ("%any", CLIENT_ID, CLIENT_NET),
            (SERVER, SERVER_ID, SERVER_NET),
        ),
    );
    client.initiate();
    let sent = flow(&net).count(20).start().finish(SETTLE);
    assert!(sent.lost().is_empty(), "{sent}: {:?}", sent.lost());
    server.wait_for("net", LIMIT, is_open);
}

#[test]
fn a_strongswan_client_is_believed_and_believes_by_rsa() {
    from_strongswan("cert_ss_cl_rsa", KeyKind::Rsa);
}

#[test]
fn a_strongswan_client_is_believed_and_believes_by_ecdsa() {
    from_strongswan("cert_ss_cl_ecdsa", KeyKind::Ecdsa);
}

#[test]
fn a_strongswan_client_is_believed_and_believes_by_ed25519() {
    from_strongswan("cert_ss_cl_ed", KeyKind::Ed25519);
}

#[test]
fn a_certificate_of_an_unknown_authority_brings_nothing_into_the_kernel() {
    let net = Topology::new("cert_unknown").build();
    let (known, foreign) = (
        pki(&net, "pki", KeyKind::Ecdsa),
        pki(&net, "foreign", KeyKind::Ecdsa),
    );
    give(&net.client, &foreign, &known, CLIENT_ID);
    give(&net.server, &known, &known, SERVER_ID);
    let server = Epochgate::start(&net.server, &server_config());
    let client = Epochgate::start(&net.client, &client_config());
    let refused = client.command(&["up", "net"]);
    assert!(!refused.status.success());
    let log = server.log();
    assert!(log.contains("no configured authority"), "{log}");
    for host in [&net.server, &net.client] {
        let mut list = std::process::Command::new("ip");
        let states = host.output(list.args(["xfrm", "state"]));
        let states = String::from_utf8_lossy(&states.stdout).into_owned();
        assert!(
            !states.contains("aead") && !states.contains("enc "),
            "{states}"
        );
    }
}
