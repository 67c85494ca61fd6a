//! Wrong configurations: each kind of mistake and exactly what the operator reads.

mod common;

use common::{Memory, SECRET};
use epochgate_config::load;

const RIGHT: &str = r#"[tunnel.branch]
role    = "client"
local   = { address = "%any", id = "branch.example", psk-file = "/good.psk" }
remote  = { address = "203.0.113.1", id = "hq.example" }
policy  = "site-to-site"
traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }
"#;

/// The same with certificates.
const CERTIFIED: &str = r#"[tunnel.branch]
role    = "client"
local   = { id = "gate.example", cert = "/gate.pem", key = "/gate.key" }
remote  = { address = "203.0.113.1", id = "hq.example", ca = ["/ca.pem"] }
policy  = "site-to-site"
traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }
"#;

/// [`CERTIFIED`] with one text in it replaced.
fn certified(old: &str, new: &str) -> String {
    assert!(CERTIFIED.contains(old));
    refused(&CERTIFIED.replace(old, new))
}

fn refused(text: &str) -> String {
    refused_with(&Memory::default(), text)
}

fn refused_with(files: &Memory, text: &str) -> String {
    let message = match load("epochgate.toml", text, files) {
        Ok(_) => "no mistake was found".to_owned(),
        Err(mistakes) => mistakes.to_string(),
    };
    assert!(!message.contains(SECRET), "{message}");
    message
}

/// [`RIGHT`] with one text in it replaced.
fn with(old: &str, new: &str) -> String {
    assert!(RIGHT.contains(old));
    refused(&RIGHT.replace(old, new))
}

/// [`RIGHT`] with more lines behind it.
fn and(more: &str) -> String {
    refused(&format!("{RIGHT}{more}"))
}

/// [`RIGHT`] as a client that is assigned its address, with one text in it replaced.
fn assigned(old: &str, new: &str) -> String {
    let text = RIGHT.replace(
        r#"traffic = { local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }"#,
        "traffic = { remote = [\"10.2.0.0/16\"] }\nvirtual = { request = [\"ipv4\"] }",
    );
    assert!(text.contains(old));
    refused(&text.replace(old, new))
}

/// A server with a pool, with one text in it replaced.
fn pooled(old: &str, new: &str) -> String {
    let text = r#"[pool.staff]
networks = ["10.99.0.0/24"]
dns      = ["10.2.0.53"]
domains  = ["hq.example"]

[tunnel.laptop]
role    = "server"
local   = { address = "203.0.113.1", id = "hq.example", psk-file = "/good.psk" }
remote  = { id = "laptop.example" }
policy  = "site-to-site"
traffic = { local = ["10.2.0.0/16"] }
virtual = { pools = ["staff"] }
"#;
    assert!(text.contains(old));
    refused(&text.replace(old, new))
}

/// A mistake a test: its name is the snapshot's.
macro_rules! mistakes {
    ($($name:ident: $message:expr,)*) => {$(
        #[test]
        fn $name() {
            insta::with_settings!({omit_expression => true}, {
                insta::assert_snapshot!(stringify!($name), $message);
            });
        }
    )*};
}

mistakes! {
    syntax_that_is_not_toml: refused("[tunnel.branch]\nrole = client\nlocal = {\n\n[daemon\n"),
    the_same_key_twice: with("policy", "role = \"server\"\npolicy"),
    the_same_tunnel_twice: refused(&format!("{RIGHT}{RIGHT}")),
    an_unknown_key_with_a_near_miss: and("[tunnel.branch.ping]\nintervall = \"1s\"\n"),
    an_unknown_key_with_underscores: with("psk-file", "psk_file"),
    an_unknown_key_that_is_known_elsewhere: with("policy", "lifetime = \"1h\"\npolicy"),
    an_unknown_key_far_from_all: with("policy", "colour = \"blue\"\npolicy"),
    a_keepalive_that_is_neither_a_time_nor_off: and("[tunnel.branch.path]\nnat-keepalive = \"never\"\n"),
    fragments_too_small_for_anybody: and("[tunnel.branch.path]\nfragment-size = 500\n"),
    an_unknown_section: and("[tunnels.x]\n"),
    a_virtual_address_beside_local_traffic: assigned("{ remote", "{ local = [\"10.1.0.0/16\"], remote"),
    a_virtual_address_on_demand: assigned("policy", "start = \"on-demand\"\npolicy"),
    a_virtual_address_of_no_ip_version: assigned("\"ipv4\"", "\"ip4\""),
    a_virtual_address_of_another_ip_version: assigned("\"ipv4\"", "\"ipv6\""),
    a_virtual_address_from_a_pool_of_the_client: assigned("request = [\"ipv4\"]", "pools = [\"staff\"]"),
    a_virtual_address_on_an_interface_that_is_none: assigned("request", "interface = \"eth 0\", request"),
    a_virtual_address_with_a_ping_source: assigned("policy", "ping = { source = \"10.1.0.1\" }\npolicy"),
    a_virtual_section_that_says_nothing: assigned("request = [\"ipv4\"]", ""),
    a_pool_that_is_not_there: pooled("[\"staff\"]", "[\"stuff\"]"),
    a_pool_without_networks: pooled("networks = [\"10.99.0.0/24\"]\n", ""),
    a_pool_that_overlaps_itself: pooled("[\"10.99.0.0/24\"]", "[\"10.99.0.0/24\", \"10.99.0.128/25\"]"),
    a_pool_that_overlaps_another: pooled("[tunnel.laptop]", "[pool.guests]\nnetworks = [\"10.99.0.0/16\"]\n\n[tunnel.laptop]"),
    a_pool_with_a_domain_that_is_none: pooled("\"hq.example\"]", "\"hq example\"]"),
    a_pool_beside_remote_traffic: pooled("{ local", "{ remote = [\"10.1.0.0/16\"], local"),
    a_server_that_requests: pooled("pools = [\"staff\"]", "request = [\"ipv4\"]"),
    a_proof_that_is_none: and("[tunnel.branch.ping]\nproof = \"icpm\"\n"),
    a_server_rekey_ignored_by_the_server: pooled("virtual", "epoch = { server-rekey = \"ignore\" }\nvirtual"),
    a_longest_back_off_shorter_than_the_first: and("[tunnel.branch.recovery]\nback-off = \"5s\"\nback-off-max = \"1s\"\n"),
    a_value_of_the_wrong_type: with("\"site-to-site\"", "3"),
    a_table_that_is_a_text: with(r#"{ local = ["10.1.0.0/16"], remote = ["10.2.0.0/16"] }"#, r#""all""#),
    a_heading_with_two_brackets: refused("[[tunnel.branch]]\nrole = \"client\"\n"),
    a_character_that_a_terminal_obeys: refused("role = \"\u{1b}[31m\"\n"),
    a_lone_text_for_a_list: with(r#"["10.1.0.0/16"]"#, r#""10.1.0.0/16""#),
    a_word_that_is_no_value: with(r#""client""#, r#""cleint""#),
    a_word_far_from_all: and("[daemon]\nlog = \"everything\"\n"),
    role_missing: with("role    = \"client\"\n", ""),
    remote_missing: with("remote  = { address = \"203.0.113.1\", id = \"hq.example\" }\n", ""),
    local_missing: with("local   = { address = \"%any\", id = \"branch.example\", psk-file = \"/good.psk\" }\n", ""),
    policy_missing: with("policy  = \"site-to-site\"\n", ""),
    traffic_missing: with("traffic = { local = [\"10.1.0.0/16\"], remote = [\"10.2.0.0/16\"] }\n", ""),
    id_missing: with(", id = \"branch.example\"", ""),
    a_name_with_a_blank: refused(&RIGHT.replace("tunnel.branch", "tunnel.\"the branch\"")),
    an_identity_with_an_at_sign_first: with("hq.example", "@hq.example"),
    an_identity_like_a_mistyped_address: with("hq.example", "203.0.113.300"),
    an_identity_with_broken_hexadecimal: with("hq.example", "keyid:abc"),
    an_address_that_is_none: with("203.0.113.1", "hq.example.com"),
    an_address_with_a_prefix_length: with("203.0.113.1", "203.0.113.1/24"),
    an_address_that_no_peer_has: with("203.0.113.1", "224.0.0.1"),
    an_address_that_is_link_local: with("203.0.113.1", "fe80::1"),
    ends_of_different_ip_versions: with("%any", "2001:db8::1"),
    a_client_without_a_server: with("address = \"203.0.113.1\", ", ""),
    a_start_towards_anybody: refused(
        &RIGHT.replace("client", "server").replace("203.0.113.1", "%any").replace("policy", "start   = \"always\"\npolicy"),
    ),
    a_secret_in_the_file_itself: with("psk-file = \"/good.psk\"", "psk = \"correct-horse-battery-staple\""),
    a_secret_on_a_line_with_bad_syntax: with("psk-file = \"/good.psk\" }", "psk = \"correct-horse-battery-staple }"),
    a_secret_in_a_file_that_is_missing: with("/good.psk", "/none.psk"),
    a_secret_in_a_file_that_is_locked: with("/good.psk", "/locked.psk"),
    a_secret_that_others_can_read: with("/good.psk", "/open.psk"),
    a_secret_that_is_too_short: with("/good.psk", "/short.psk"),
    a_secret_that_is_too_long: with("/good.psk", "/long.psk"),
    a_secret_that_is_missing: with(", psk-file = \"/good.psk\"", ""),
    a_network_with_host_bits: with("10.1.0.0/16", "10.1.2.3/16"),
    a_network_with_a_wrong_prefix_length: with("10.1.0.0/16", "10.1.0.0/33"),
    a_network_that_is_none: with("10.1.0.0/16", "lan"),
    a_network_twice: with("[\"10.1.0.0/16\"]", "[\"10.1.0.0/16\", \"10.1.0.0/16\"]"),
    no_traffic_on_one_side: with("[\"10.2.0.0/16\"]", "[]"),
    networks_without_a_counterpart: with("[\"10.2.0.0/16\"]", "[\"2001:db8:2::/48\"]"),
    one_network_without_a_counterpart: with("[\"10.2.0.0/16\"]", "[\"10.2.0.0/16\", \"2001:db8:2::/48\"]"),
    too_many_pairs: nine_times_nine_networks(),
    a_policy_template_that_is_not_there: with("site-to-site", "site-to-sight"),
    a_policy_template_outside_its_directory: with("site-to-site", "../../etc/passwd"),
    a_policy_template_that_is_locked: with("site-to-site", "locked"),
    a_policy_template_with_a_mistake: refused_with(
        &Memory::default().with_template("own", "forwards = true\npriority = 3\n"),
        &RIGHT.replace("site-to-site", "own"),
    ),
    outer_addresses_as_traffic_without_an_address: refused(
        "[tunnel.pair]\nrole = \"client\"\nlocal = { id = \"a\", psk-file = \"/good.psk\" }\n\
         remote = { address = \"203.0.113.1\" }\npolicy = \"host-to-host\"\n",
    ),
    a_ping_target_outside: and("[tunnel.branch.ping]\ntarget = \"10.1.0.1\"\n"),
    a_ping_source_outside: and("[tunnel.branch.ping]\nsource = \"192.0.2.1\"\n"),
    a_ping_between_ip_versions: refused(&format!(
        "{}[tunnel.branch.ping]\nsource = \"10.1.0.1\"\ntarget = \"2001:db8:2::1\"\n",
        RIGHT.replace("/16\"]", "/16\", \"2001:db8:2::/48\"]")
    )),
    a_ping_interval_out_of_bounds: and("[tunnel.branch.ping]\ninterval = \"1ms\"\n"),
    a_duration_without_a_unit: and("[tunnel.branch.epoch]\nlifetime = \"3600\"\n"),
    a_duration_as_a_number: and("[tunnel.branch.epoch]\nlifetime = 3600\n"),
    interface_name_too_long: and("interface = { name = \"an-interface-too-long\" }\n"),
    interface_without_a_name: and("interface = { mtu = 1400 }\n"),
    interface_of_two_tunnels: and(
        &("interface = { name = \"ipsec0\" }\n".to_owned()
            + &second("annex.example", "10.7.0.0/16", "10.8.0.0/16")
            + "interface = { name = \"ipsec0\" }\n"),
    ),
    ping_attempts_out_of_bounds: and("[tunnel.branch.ping]\nattempts = 0\n"),
    pinging_longer_than_an_epoch_lives: and(
        "[tunnel.branch.ping]\ninterval = \"5s\"\n[tunnel.branch.epoch]\nlifetime = \"15s\"\n",
    ),
    draining_longer_than_an_epoch_lives: and(
        "[tunnel.branch.epoch]\nlifetime = \"10s\"\ndrain = \"1m\"\n",
    ),
    an_ike_sa_that_would_live_too_short: and("[tunnel.branch.ike]\nlifetime = \"1s\"\nreauthenticate = \"soon\"\n"),
    an_algorithm_that_is_unknown: and("[tunnel.branch.algorithms]\nike = { cipher = [\"aes256gcm\", \"3des\"] }\n"),
    algorithms_that_are_too_weak: and("[tunnel.branch.algorithms]\nike = { cipher = [\"aes128-sha1\"], prf = [\"hmac-md5\"], group = [\"modp1024\"] }\nesp = { cipher = [\"null-sha256\", \"aes128gcm8\"] }\n"),
    secrecy_that_has_no_group: and("[tunnel.branch.algorithms]\nesp = { group = [], pfs = \"require\" }\n"),
    a_replay_window_that_the_kernel_has_not: and("[tunnel.branch.algorithms]\nesp = { replay-window = 8192 }\n"),
    an_algorithm_twice: and("[tunnel.branch.algorithms]\nesp = { group = [\"p256\", \"p256\"] }\n"),
    no_algorithm_at_all: and("[tunnel.branch.algorithms]\nike = { prf = [] }\n"),
    a_cookie_threshold_that_is_never_reached: and("[ike]\ncookie-threshold = 50\nhalf-open-max = 50\n"),
    a_bound_of_half_open_ike_sas_that_is_unknown: and("[ike]\nhalf-open = 10\n"),
    a_half_open_lifetime_too_short: and("[ike]\nhalf-open-lifetime = \"1s\"\n"),
    a_certificate_without_its_key: certified(", key = \"/gate.key\"", ""),
    a_certificate_that_is_not_there: certified("/gate.pem", "/none.pem"),
    a_certificate_that_has_expired: certified("/gate.pem", "/old.pem"),
    a_certificate_that_names_somebody_else: certified("gate.example", "other.example"),
    a_certificate_file_without_certificate: certified("/gate.pem", "/nonsense.pem"),
    a_private_key_of_another_certificate: certified("/gate.key", "/other.key"),
    a_private_key_that_others_can_read: certified("/gate.key", "/open.key"),
    a_certificate_without_authorities: certified(", ca = [\"/ca.pem\"]", ""),
    authorities_that_are_no_list: certified("[\"/ca.pem\"]", "\"/ca.pem\""),
    an_authority_file_without_certificate: certified("[\"/ca.pem\"]", "[\"/ca.pem\", \"/nonsense.pem\"]"),
    a_revocation_list_that_is_stale: certified("ca = [", "crl = [\"/stale.crl\"], ca = ["),
    a_pre_shared_key_that_proves_nothing: certified("cert =", "psk-file = \"/good.psk\", cert ="),
    a_distinguished_name_that_is_none: certified("id = \"hq.example\"", "id = \"CN=hq, XX=y\""),
    a_user_without_a_password: certified("cert = \"/gate.pem\", key = \"/gate.key\"", "eap-user = \"alice\""),
    a_user_whose_name_is_none: certified("cert = \"/gate.pem\", key = \"/gate.key\"", "eap-user = \"a:b\", eap-password-file = \"/good.password\""),
    a_user_whose_server_proves_nothing: with("psk-file = \"/good.psk\"", "eap-user = \"alice\", eap-password-file = \"/good.password\""),
    a_user_and_a_certificate: certified("cert =", "eap-user = \"alice\", eap-password-file = \"/good.password\", cert ="),
    users_without_a_certificate_of_ours: with("id = \"hq.example\"", "id = \"hq.example\", eap-users-file = \"/users\""),
    users_that_others_can_read: certified("ca = [\"/ca.pem\"]", "eap-users-file = \"/open.users\""),
    users_on_a_line_that_is_none: certified("ca = [\"/ca.pem\"]", "eap-users-file = \"/bad.users\""),
    users_that_are_nobody: certified("ca = [\"/ca.pem\"]", "eap-users-file = \"/no.users\""),
    a_post_quantum_key_without_a_name: and("[tunnel.branch.ppk]\nfile = \"/good.ppk\"\n"),
    a_post_quantum_key_that_is_too_short: and("[tunnel.branch.ppk]\nid = \"a\"\nfile = \"/good.psk\"\n"),
    a_post_quantum_key_beside_eap: refused(&format!(
        "{}[tunnel.branch.ppk]\nid = \"a\"\nfile = \"/good.ppk\"\n",
        CERTIFIED.replace("ca = [\"/ca.pem\"]", "eap-users-file = \"/users\"")
    )),
    a_socket_path_that_is_relative: and("[daemon]\nsocket = \"control.sock\"\n"),
    a_socket_path_that_is_too_long: and(&format!("[daemon]\nsocket = \"/{}\"\n", "x".repeat(107))),
    the_same_traffic_in_two_tunnels: and(&second("branch2.example", "10.1.0.0/16", "10.2.0.0/16")),
    two_tunnels_that_a_responder_confuses: and(
        &(second("branch.example", "10.7.0.0/16", "10.8.0.0/16") + "nat-t = \"off\"\n"),
    ),
    a_wrong_role_hides_nothing: refused(
        &(RIGHT
            .replace("client", "initiator")
            .replace("10.1.0.0/16", "10.1.2.3/16")
            .replace("/good.psk", "/locked.psk")
            .replace("policy", "colour  = \"blue\"\npolicy")
            + "virtual = { request = [\"ipv5\"] }\n[tunnel.branch.ping]\ntarget = \"10.9.0.1\"\n"),
    ),
    wrong_algorithms_hide_nothing: refused(
        &(RIGHT.replace("[\"10.2.0.0/16\"]", "[\"10.2.0.0/33\", 5]").replace("id = \"hq.example\"", "id = \"@hq\"")
            + "[tunnel.branch.algorithms]\n\
               ike = { cipher = [5, \"aes256gmc16\"], prf = [\"hmac-md5\"], group = [\"modp1024\", \"x25519\"] }\n\
               esp = { cipher = [], group = [\"p265\"], esn = \"on\", replay-window = 8 }\n\
               [tunnel.branch.epoch]\nlifetime = \"1w\"\ndrain = \"2s\"\n"),
    ),
    a_missing_policy_hides_nothing: refused(
        &(RIGHT.replace("policy  = \"site-to-site\"\n", "").replace("[\"10.1.0.0/16\"]", "[\"2001:db8::/32\"]")
            + "[tunnel.branch.ping]\nsource = \"10.1.0.1\"\n"),
    ),
    a_wrong_side_hides_nothing_of_the_other: refused(
        &(RIGHT.replace("[\"10.1.0.0/16\"]", "\"10.1.0.0/16\"")
            + "[tunnel.branch.ping]\nsource = \"10.9.0.1\"\ntarget = \"10.9.0.1\"\n"),
    ),
    a_wrong_template_directory_is_one_mistake: refused(
        &(RIGHT.replace("site-to-site", "own") + "[daemon]\npolicies = \"policies\"\n"),
    ),
    a_wrong_outer_address_is_one_mistake: refused(
        "[tunnel.pair]\nrole = \"client\"\nlocal = { address = \"10.0.0.300\", id = \"a\", psk-file = \"/good.psk\" }\n\
         remote = { address = \"203.0.113.1\" }\npolicy = \"host-to-host\"\n",
    ),
    settings_that_are_wrong_are_not_compared: and(
        "[tunnel.branch.ping]\ninterval = \"1ms\"\nattempts = 100\n\
         [tunnel.branch.epoch]\nlifetime = \"20s\"\n\
         [tunnel.branch.recovery]\nback-off = \"50\"\nback-off-max = \"100ms\"\n\
         [ike]\ncookie-threshold = 2000\nhalf-open-max = -1\n",
    ),
    a_wrong_pool_hides_nothing: pooled("[\"10.99.0.0/24\"]", "[\"10.99.0.1/24\", \"2001:db8::/129\", 5]"),
    pools_by_a_wrong_name_are_one_mistake: pooled("[pool.staff]", "[pools.staff]"),
    a_pre_shared_key_beside_certificates_hides_nothing: refused(
        &(CERTIFIED.replace("cert =", "psk-file = 5, cert =").replace("/gate.pem", "/none.pem").replace("/gate.key", "/none.key")
            .replace("ca = [\"/ca.pem\"]", "ca = [\"/none.pem\", 5], crl = [\"/none.crl\"], stale-crl = \"maybe\"")
            + "[tunnel.branch.ppk]\nid = \"\"\nfile = \"/short.psk\"\n"),
    ),
    a_mistyped_pre_shared_key_is_one_mistake: certified("cert = \"/gate.pem\", key = \"/gate.key\"", "psk_file = \"/good.psk\""),
    an_open_secret_may_be_too_short_as_well: with("/good.psk", "/open-and-short.psk"),
    a_wrong_user_hides_nothing: refused(
        &(CERTIFIED.replace("cert = \"/gate.pem\", key = \"/gate.key\"", "eap-user = \"a:b\", eap-password-file = \"/none.password\"")
            .replace("ca = [\"/ca.pem\"]", "eap-users-file = \"/bad.users\"")
            + "[tunnel.branch.ppk]\nfile = \"/none.ppk\"\n"),
    ),
    a_wrong_tunnel_is_compared_with_others: first_of_two(
        &(second("branch.example", "10.1.0.0/16", "10.2.0.0/16") + "nat-t = \"off\"\n"),
        &[("site-to-site", "nowhere"), ("remote = [\"10.2.0.0/16\"] }", "remote = [\"10.2.0.0/16\"] }\nping = { attempts = 0 }")],
    ),
    a_mistyped_setting_is_not_compared: first_of_two(
        &(second("branch.example", "10.7.0.0/16", "10.8.0.0/16") + "nat-t = \"off\"\n"),
        &[("policy", "nat_t   = \"off\"\npolicy")],
    ),
    the_same_traffic_in_three_tunnels: refused(
        &(RIGHT.to_owned()
            + &second("b.example", "10.3.0.0/16", "10.4.0.0/16")
            + &second("c.example", "10.1.0.0/16\", \"10.3.0.0/16", "10.2.0.0/16\", \"10.4.0.0/16").replace("annex", "third")),
    ),
    one_lonely_network_among_too_many: refused(
        &nine_times_nine().replace("local = [", "local = [\"2001:db8::/32\", "),
    ),
    the_same_mistake_of_syntax_twice: refused("[tunnel.a]\nrole = client\n[tunnel.b]\nrole = server\nstart = always\n"),
    keys_that_are_there_twice_in_two_tables: refused("[tunnel.a]\nrole = 1\nrole = 2\nstart = 1\nstart = 2\n[tunnel.b]\nrole = 1\nrole = 2\n[tunnel.a]\nrole = 3\nstart = 3\n"),
    several_mistakes_at_once: refused(
        &RIGHT
            .replace("client", "cliend")
            .replace("10.1.0.0/16", "10.1.0.1/16")
            .replace("/good.psk", "/none.psk")
            .replace("policy", "policie"),
    ),
}

/// [`RIGHT`] and another tunnel, with some mistakes in the first one.
fn first_of_two(other: &str, mistakes: &[(&str, &str)]) -> String {
    let mut first = RIGHT.to_owned();
    for (old, new) in mistakes {
        assert!(first.contains(old), "{old}");
        first = first.replace(old, new);
    }
    refused(&format!("{first}{other}"))
}

/// Another tunnel to the same server.
fn second(id: &str, local: &str, remote: &str) -> String {
    RIGHT
        .replace("[tunnel.branch]", "\n[tunnel.annex]")
        .replace("branch.example", id)
        .replace("10.1.0.0/16", local)
        .replace("10.2.0.0/16", remote)
}

fn nine_times_nine_networks() -> String {
    refused(&nine_times_nine())
}

fn nine_times_nine() -> String {
    let nets = |second: u8| {
        let nets = (0..9).map(|third| format!("\"10.{second}.{third}.0/24\""));
        nets.collect::<Vec<_>>().join(", ")
    };
    let (local, remote) = (nets(1), nets(2));
    RIGHT
        .replace("\"10.1.0.0/16\"", &local)
        .replace("\"10.2.0.0/16\"", &remote)
}

#[test]
fn of_very_many_mistakes_the_first_are_shown_and_all_are_counted() {
    let text: String = (0..100)
        .map(|n| format!("[tunnel.t{n}]\nrole = 1\n"))
        .collect();
    let Err(mistakes) = load("epochgate.toml", &text, &Memory::default()) else {
        unreachable!("a hundred tunnels without peers");
    };
    assert_eq!(mistakes.count(), 400);
    assert!(mistakes.to_string().matches("epochgate.toml:").count() <= 20);
    assert!(mistakes.to_string().ends_with("more not shown"));
}

#[test]
fn too_many_tunnels_are_refused() {
    let text: String = (0..30_001).map(|n| format!("[tunnel.t{n}]\n")).collect();
    let Err(mistakes) = load("epochgate.toml", &text, &Memory::default()) else {
        unreachable!("more tunnels than there may be");
    };
    assert_eq!(
        mistakes.iter().map(|m| m.title()).collect::<Vec<_>>(),
        ["more than 30000 tunnels"]
    );
}

#[test]
fn a_mistake_knows_its_file_and_line() {
    let text = RIGHT.replace("site-to-site", "nowhere");
    let Err(mistakes) = load("epochgate.toml", &text, &Memory::default()) else {
        unreachable!("there is no such template");
    };
    let places: Vec<_> = mistakes.iter().map(|m| (m.file(), m.line())).collect();
    assert_eq!(places, [("epochgate.toml", 5)]);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = refused(&text);
    }

    #[test]
    fn no_damage_to_a_right_file_makes_it_panic(at in 0..RIGHT.len(), new in "[\"\\[\\]{}=,.0-9a-z%é\n\u{1b}-]{0,4}") {
        let damaged = format!("{}{new}{}", &RIGHT[..at], &RIGHT[at + 1..]);
        let _ = refused(&damaged);
    }
}
