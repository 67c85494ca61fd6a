//! Post-quantum pre-shared keys (RFC 8784): both ends, one end, another key.

use super::certificates::refused;
use super::*;
use crate::pki::Ppk;

fn ppk(key: u8, required: bool) -> Option<Ppk> {
    Some(Ppk {
        id: b"2026".to_vec(),
        key: Secret::from(vec![key; 32]),
        required,
    })
}

fn pair(client: Option<Ppk>, server: Option<Ppk>) -> Pair {
    let mut pair = Pair::with(|it| it.auth.ppk = client, |it| it.auth.ppk = server);
    pair.connect();
    pair.settle();
    pair
}

fn is_open(pair: &Pair) -> bool {
    pair.client.is_established() && pair.server.is_established()
}

#[test]
fn a_key_that_both_ends_have_goes_into_the_childs_keys() {
    for required in [false, true] {
        let mut pair = pair(ppk(1, required), ppk(1, required));
        assert!(is_open(&pair), "{:?}", pair.server.closed());
        pair.assert_same_child();
        let (sa, child) = (pair.client.sa(), pair.client.child().id);
        let now = pair.now;
        pair.client.endpoint.rekey_child(sa, child, now);
        pair.settle();
        pair.assert_same_child();
    }
}

#[test]
fn an_end_that_has_none_is_let_in_where_none_is_required() {
    for (client, server) in [(ppk(1, false), None), (None, ppk(1, false))] {
        let pair = pair(client, server);
        assert!(is_open(&pair), "{:?}", pair.server.closed());
        pair.assert_same_child();
    }
}

#[test]
fn a_server_with_a_key_of_another_name_takes_the_auth_without() {
    let mut other = ppk(1, false);
    other.as_mut().unwrap().id = b"2027".to_vec();
    let pair = pair(ppk(1, false), other.clone());
    assert!(is_open(&pair), "{:?}", pair.server.closed());
    pair.assert_same_child();
}

#[test]
fn a_required_key_that_the_client_has_not_refuses_it() {
    for client in [None, ppk(2, false)] {
        let pair = pair(client, ppk(1, true));
        let text = refused(&pair, End::Server);
        assert!(
            text.contains("post-quantum") || text.contains("check psk"),
            "{text}"
        );
    }
}

#[test]
fn a_client_that_requires_a_key_goes_on_with_nobody_who_has_none() {
    let pair = pair(ppk(1, true), None);
    assert!(!is_open(&pair) && pair.server.children.is_empty());
    let Some(CloseReason::Failed(text)) = pair.client.closed() else {
        panic!("{:?}", pair.client.closed())
    };
    assert!(text.contains("requires a post-quantum"), "{text}");
}

#[test]
fn another_key_under_the_same_name_is_refused() {
    let pair = pair(ppk(1, true), ppk(2, true));
    assert!(!is_open(&pair));
    assert!(pair.client.children.is_empty() && pair.server.children.is_empty());
}

#[test]
fn no_key_is_shown() {
    let shown = format!("{:?}", ppk(0x77, true));
    assert!(
        shown.contains("Secret(32 octets)") && !shown.contains("119"),
        "{shown}"
    );
}
