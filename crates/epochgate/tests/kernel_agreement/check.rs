//! Whether the JSON of `epochgate xfrm` says what was written, attribute by attribute.

use std::net::IpAddr;
use std::num::NonZeroU32;

use epochgate_xfrm::{
    Integrity, Key, Limits, Mark, Policy, PolicyAction, PolicyFlags, PortMatch, Protection, Sa,
    SaExtraFlags, SaFlags, Selector,
};
use serde_json::{Value, json};

use crate::lines::{hex, policy_line, sa_line};

fn mark_json(mark: Option<Mark>) -> Value {
    mark.map_or(Value::Null, |Mark { value, mask }| {
        json!({"value": format!("{value:#x}"), "mask": format!("{mask:#x}")})
    })
}

fn selector_json(selector: &Selector) -> Value {
    let port = |port: PortMatch| match port.mask {
        0 => Value::Null,
        mask => json!({"port": port.port, "mask": format!("{mask:#x}")}),
    };
    json!({
        "source": selector.source().to_string(),
        "destination": selector.destination().to_string(),
        "protocol": selector.protocol,
        "source_port": port(selector.source_port),
        "destination_port": port(selector.destination_port),
        "interface_index": 0,
        "user": 0,
    })
}

/// Every limit that was set is there; nothing is used up but a little time.
fn check_limits(limits: &Limits, shown: &Value, what: &str) {
    for (name, limit) in [("soft", &limits.soft), ("hard", &limits.hard)] {
        let shown = &shown[name];
        for (unit, number) in [
            ("bytes", limit.bytes),
            ("packets", limit.packets),
            ("seconds_since_added", limit.seconds_since_added),
            ("seconds_since_used", limit.seconds_since_used),
        ] {
            assert_eq!(shown[unit], json!(number), "{name} {unit} of {what}");
            let left = shown["left"][unit].as_u64();
            match number {
                None => assert_eq!(left, None, "{what}"),
                Some(number) => {
                    let left = left.expect("what is left");
                    assert!(
                        left <= number && left + 3600 > number,
                        "{left} {number} {what}"
                    );
                }
            }
        }
    }
}

fn algorithm_json(name: &str, key: Option<&Key>, icv_bits: Option<u32>) -> Value {
    let shown = |key: &Key| format!("0x{}", hex(key).replace("\"\"", "").replace("0x", ""));
    json!({
        "name": name,
        "key_bits": key.map_or(0, Key::bits),
        "icv_bits": icv_bits,
        "key": key.map(shown),
    })
}

fn check_protection(protection: &Protection, shown: &Value, what: &str) {
    let of_integrity = |i: &Integrity| algorithm_json(&i.name, Some(&i.key), i.truncation_bits);
    let mut wanted = json!({
        "aead": null, "encryption": null, "integrity": null, "compression": null,
    });
    match protection {
        Protection::Larval => {}
        Protection::Aead(a) => {
            wanted["aead"] = algorithm_json(&a.name, Some(&a.key), Some(a.icv_bits));
        }
        Protection::Encryption { cipher, integrity } => {
            wanted["encryption"] = algorithm_json(&cipher.name, Some(&cipher.key), None);
            wanted["integrity"] = integrity.as_ref().map_or(Value::Null, of_integrity);
        }
        Protection::Integrity(integrity) => wanted["integrity"] = of_integrity(integrity),
        Protection::Compression(compression) => {
            wanted["compression"] = algorithm_json(&compression.name, None, None);
        }
    }
    for part in ["aead", "encryption", "integrity", "compression"] {
        assert_eq!(shown[part], wanted[part], "{part} of {what}");
    }
}

pub(crate) fn check_sa(sa: &Sa, shown: &Value) {
    let what = sa_line(sa);
    let same = |name: &str, wanted: Value| assert_eq!(shown[name], wanted, "{name} of {what}");
    same("source", json!(sa.source));
    same("destination", json!(sa.destination));
    same("protocol", json!(sa.protocol.to_string()));
    same("spi", json!(sa.spi.map(|spi| spi.to_string())));
    same("reqid", json!(sa.reqid.0));
    same("mode", json!(sa.mode.to_string()));
    same("larval", json!(false));
    check_protection(&sa.protection, shown, &what);
    let encap = sa.encap.map(|encap| {
        json!({
            "kind": "udp",
            "source_port": encap.source_port,
            "destination_port": encap.destination_port,
            "original_address": null,
        })
    });
    same("encapsulation", json!(encap));
    same("mark", mark_json(sa.mark));
    same("output_mark", mark_json(sa.output_mark));
    same("if_id", json!(sa.if_id.map(NonZeroU32::get)));
    assert_eq!(
        shown["replay"]["window"], sa.replay_window.packets,
        "{what}"
    );
    assert_eq!(
        shown["replay"]["extended"], sa.replay_window.extended,
        "{what}"
    );
    let everything = match sa.source {
        _ if sa.flags.contains(SaFlags::AF_UNSPEC) => None,
        IpAddr::V4(_) => Some(Selector::ANY_V4),
        IpAddr::V6(_) => Some(Selector::ANY_V6),
    };
    let selector = sa.selector.or(everything);
    same(
        "selector",
        selector.as_ref().map_or(Value::Null, selector_json),
    );
    check_limits(&sa.limits, &shown["limits"], &what);
    let mut flags = Vec::new();
    for (flag, name) in [
        (SaFlags::NO_ECN, "noecn"),
        (SaFlags::DECAP_DSCP, "decap-dscp"),
        (SaFlags::NO_PMTU_DISCOVERY, "nopmtudisc"),
        (SaFlags::ICMP, "icmp"),
        (SaFlags::AF_UNSPEC, "af-unspec"),
        (SaFlags::ALIGN4, "align4"),
    ] {
        if sa.flags.contains(flag) {
            flags.push(name);
        }
    }
    if sa.extra_flags.contains(SaExtraFlags::DONT_ENCAP_DSCP) {
        flags.push("dont-encap-dscp");
    }
    same("flags", json!(flags));
    same("attributes", json!([]));
}

pub(crate) fn check_policy(policy: &Policy, shown: &Value) {
    let what = policy_line(policy);
    let same = |name: &str, wanted: Value| assert_eq!(shown[name], wanted, "{name} of {what}");
    same("direction", json!(policy.direction.to_string()));
    same("selector", selector_json(&policy.selector));
    let (action, effect) = match (policy.action, policy.templates.is_empty()) {
        (PolicyAction::Block, _) => ("block", "block"),
        (PolicyAction::Allow, true) => ("allow", "clear"),
        (PolicyAction::Allow, false) => ("allow", "protect"),
    };
    same("action", json!(action));
    same("effect", json!(effect));
    same("priority", json!(policy.priority));
    same("mark", mark_json(policy.mark));
    same("if_id", json!(policy.if_id.map(NonZeroU32::get)));
    same("sub_policy", json!(false));
    check_limits(&policy.limits, &shown["limits"], &what);
    let mut flags = Vec::new();
    if policy.flags.contains(PolicyFlags::LOCAL_OK) {
        flags.push("localok");
    }
    if policy.flags.contains(PolicyFlags::ICMP) {
        flags.push("icmp");
    }
    same("flags", json!(flags));
    let templates = shown["templates"].as_array().expect("templates");
    assert_eq!(templates.len(), policy.templates.len(), "{what}");
    for (template, shown) in policy.templates.iter().zip(templates) {
        let same = |name: &str, wanted: Value| {
            assert_eq!(shown[name], wanted, "{name} of a template of {what}");
        };
        same("source", json!(template.source));
        same("destination", json!(template.destination));
        same("protocol", json!(template.protocol.to_string()));
        same("mode", json!("tunnel"));
        same("spi", json!(template.spi.map(|spi| spi.to_string())));
        same("reqid", json!(template.reqid.0));
        same("optional", json!(template.optional));
        let all = format!("{:#x}", u32::MAX);
        let masks = json!({"encryption": all, "integrity": all, "compression": all});
        same("algorithms", masks);
    }
}
