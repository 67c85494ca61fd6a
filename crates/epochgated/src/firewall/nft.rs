//! Reads `nft --json list ruleset` (libnftables-json(5)).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::SourceNat;
use super::rules::{Chains, Match, Range, Rule, Verdict};

/// The source NAT chains of a ruleset. Tables that iptables made (`xt` expressions) are left out:
/// their conditions can't be read here, `iptables-save` tells them.
///
/// # Errors
/// What is wrong with the JSON.
pub(super) fn read(json: &[u8]) -> Result<Vec<SourceNat>, serde_json::Error> {
    let ruleset: Value = serde_json::from_slice(json)?;
    let objects = ruleset["nftables"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let mut tables: HashMap<(&str, &str), Chains> = HashMap::new();
    let mut bases = Vec::new();
    let mut of_iptables = HashSet::new();
    for object in objects {
        if let Some(chain) = object.get("chain") {
            let source_nat = chain["type"] == "nat" && chain["hook"] == "postrouting";
            if source_nat && let Some(name) = chain["name"].as_str() {
                bases.push((table_of(chain), name, chain["prio"].as_i64().unwrap_or(0)));
            }
        } else if let Some(rule) = object.get("rule") {
            if is_of_iptables(rule) {
                of_iptables.insert(table_of(rule));
            }
            let chain = rule["chain"].as_str().unwrap_or_default();
            tables
                .entry(table_of(rule))
                .or_default()
                .entry(chain.to_owned())
                .or_default()
                .push(read_rule(rule));
        }
    }
    bases.sort_by_key(|(_, _, priority)| *priority);
    Ok(bases
        .into_iter()
        .filter(|(table, ..)| !of_iptables.contains(table))
        .map(|((family, table), base, _)| SourceNat {
            chains: tables.get(&(family, table)).cloned().unwrap_or_default(),
            base: base.to_owned(),
            ipv6: match family {
                "ip" => Some(false),
                "ip6" => Some(true),
                _ => None,
            },
            cure: "add `rt ipsec missing` to that rule",
        })
        .collect())
}

/// Family and name of the table that a chain or rule is in.
fn table_of(object: &Value) -> (&str, &str) {
    (
        object["family"].as_str().unwrap_or_default(),
        object["table"].as_str().unwrap_or_default(),
    )
}

fn is_of_iptables(rule: &Value) -> bool {
    let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    expressions
        .iter()
        .any(|expression| expression.get("xt").is_some())
}

fn read_rule(rule: &Value) -> Rule {
    let (family, table) = table_of(rule);
    let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    let mut matches = Vec::new();
    let mut verdict = Verdict::Continue;
    for expression in expressions {
        let Some((kind, value)) = expression
            .as_object()
            .and_then(|object| object.iter().next())
        else {
            continue;
        };
        match kind.as_str() {
            "match" => matches.push(read_match(value)),
            "masquerade" | "snat" => verdict = Verdict::Rewrite,
            "accept" | "drop" | "reject" => verdict = Verdict::Stop,
            "return" => verdict = Verdict::Return,
            "jump" => verdict = Verdict::Jump(target(value)),
            "goto" => verdict = Verdict::Goto(target(value)),
            "counter" | "comment" | "log" | "mangle" => {}
            // Sets, limits, iptables' own matches: something may or may not match.
            _ => matches.push(Match::Unknown),
        }
    }
    Rule {
        matches,
        verdict,
        name: format!(
            "table {family} {table}, chain {}, rule handle {}",
            rule["chain"].as_str().unwrap_or_default(),
            rule["handle"].as_u64().unwrap_or_default()
        ),
    }
}

fn target(value: &Value) -> String {
    value["target"].as_str().unwrap_or_default().to_owned()
}

fn read_match(value: &Value) -> Match {
    let negated = match value["op"].as_str() {
        Some("==" | "in") => false,
        Some("!=") => true,
        _ => return Match::Unknown,
    };
    let (left, right) = (&value["left"], &value["right"]);
    if let Some(payload) = left.get("payload") {
        let ranges = match payload["protocol"].as_str() {
            Some("ip" | "ip6") => read_ranges(right),
            _ => None,
        };
        return match (payload["field"].as_str(), ranges) {
            (Some("saddr"), Some(ranges)) => Match::Source { negated, ranges },
            (Some("daddr"), Some(ranges)) => Match::Destination { negated, ranges },
            _ => Match::Unknown,
        };
    }
    if left["rt"]["key"] == "ipsec" {
        return match right.as_bool().map(|exists| exists != negated) {
            Some(true) => Match::Protected,
            Some(false) => Match::Unprotected,
            None => Match::Unknown,
        };
    }
    match (left["meta"]["key"].as_str(), right.as_str()) {
        (Some("nfproto"), Some("ipv4")) => Match::Ipv6(negated),
        (Some("nfproto"), Some("ipv6")) => Match::Ipv6(!negated),
        (Some("oif" | "oifname"), Some("lo")) if !negated => Match::Never,
        _ => Match::Unknown,
    }
}

/// Addresses, prefixes, ranges and anonymous sets of them; not named sets.
fn read_ranges(value: &Value) -> Option<Vec<Range>> {
    if let Some(set) = value.get("set") {
        return match set {
            Value::Array(elements) => elements.iter().map(read_range).collect(),
            single => Some(vec![read_range(single)?]),
        };
    }
    Some(vec![read_range(value)?])
}

fn read_range(value: &Value) -> Option<Range> {
    if let Some(prefix) = value.get("prefix") {
        let address: IpAddr = prefix["addr"].as_str()?.parse().ok()?;
        let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
        return Some(IpNet::new(address, length).ok()?.into());
    }
    if let Some(bounds) = value.get("range").and_then(Value::as_array) {
        let [first, last] = bounds.as_slice() else {
            return None;
        };
        return Some(Range {
            first: first.as_str()?.parse().ok()?,
            last: last.as_str()?.parse().ok()?,
        });
    }
    let address: IpAddr = value.as_str()?.parse().ok()?;
    Some(IpNet::from(address).into())
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Traffic, rewriting};
    use super::*;

    /// As nft 1.0.6 prints it.
    const RULESET: &str = r#"{"nftables": [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": "ip", "name": "nat", "handle": 1}},
        {"chain": {"family": "ip", "table": "nat", "name": "sub", "handle": 1}},
        {"chain": {"family": "ip", "table": "nat", "name": "post", "handle": 2, "type": "nat",
                   "hook": "postrouting", "prio": 100, "policy": "accept"}},
        {"rule": {"family": "ip", "table": "nat", "chain": "sub", "handle": 4,
                  "expr": [{"masquerade": null}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "post", "handle": 5, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                       "right": {"prefix": {"addr": "10.1.0.0", "len": 16}}}},
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}},
                       "right": {"prefix": {"addr": "10.2.0.0", "len": 16}}}},
            {"accept": null}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "post", "handle": 7, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                       "right": {"set": ["1.2.3.4", {"prefix": {"addr": "10.3.0.0", "len": 16}},
                                         {"range": ["10.5.0.1", "10.5.0.9"]}]}}},
            {"masquerade": null}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "post", "handle": 8, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "eth0"}},
            {"match": {"op": "==", "left": {"rt": {"key": "ipsec"}}, "right": false}},
            {"masquerade": null}]}},
        {"rule": {"family": "ip", "table": "nat", "chain": "post", "handle": 10, "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                       "right": "@s"}},
            {"jump": {"target": "sub"}}]}}
    ]}"#;

    fn offender(source: &str, destination: &str) -> Option<String> {
        let found = read(RULESET.as_bytes()).expect("JSON");
        assert_eq!(found.len(), 1);
        let traffic = Traffic {
            source: source.parse().expect("network"),
            destination: destination.parse().expect("network"),
        };
        rewriting(&found[0].chains, &found[0].base, traffic).map(|rule| rule.name.clone())
    }

    #[test]
    fn an_accept_before_the_masquerade_exempts_its_traffic() {
        assert_eq!(offender("10.1.0.0/16", "10.2.0.0/16"), None);
    }

    #[test]
    fn a_set_with_a_network_of_ours_is_found() {
        for source in ["10.3.7.0/24", "10.5.0.2/32", "1.2.3.4/32"] {
            let name = offender(source, "10.2.0.0/16").expect("found");
            assert_eq!(name, "table ip nat, chain post, rule handle 7");
        }
    }

    #[test]
    fn what_only_a_named_set_excludes_is_found_behind_its_jump() {
        let name = offender("10.9.0.0/16", "10.2.0.0/16").expect("found");
        assert_eq!(name, "table ip nat, chain sub, rule handle 4");
    }

    #[test]
    fn json_of_another_shape_is_an_empty_ruleset() {
        for json in [
            "{}",
            "[]",
            r#"{"nftables": [{"chain": 1}, {"rule": {"expr": 2}}]}"#,
        ] {
            assert!(read(json.as_bytes()).expect("JSON").is_empty(), "{json}");
        }
    }
}
