//! Reads `nft --json list ruleset` (libnftables-json(5)).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::rules::{Chains, Direction, Match, Ports, Range, Rule, State, Verdict};
use super::{BaseChain, Hook, Tool};

/// A ruleset.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// The base chains that can be judged.
    pub chains: Vec<BaseChain>,
    /// Tables that iptables made, `FAMILY NAME`: their conditions (`xt` expressions) can't be read
    /// here, `iptables-save` tells them.
    pub of_iptables: Vec<String>,
}

/// A table: family and name.
type TableKey<'a> = (&'a str, &'a str);
/// Named sets and their elements.
type Sets<'a> = HashMap<(TableKey<'a>, &'a str), &'a Value>;

/// The base chains of a ruleset. Objects of another shape are passed over.
///
/// # Errors
/// What is wrong with the JSON.
pub fn read(json: &[u8]) -> Result<Ruleset, serde_json::Error> {
    let ruleset: Value = serde_json::from_slice(json)?;
    let objects = list(&ruleset["nftables"]);
    let sets: Sets<'_> = objects
        .iter()
        .filter_map(|object| {
            let set = object.get("set")?;
            Some(((table_of(set), set["name"].as_str()?), set.get("elem")?))
        })
        .collect();
    let mut tables: HashMap<TableKey<'_>, Chains> = HashMap::new();
    let mut bases = Vec::new();
    let mut of_iptables = HashSet::new();
    let mut dormant = HashSet::new();
    for object in objects {
        if let Some(table) = object.get("table") {
            let flags = &table["flags"];
            if flags == "dormant" || list(flags).iter().any(|flag| flag == "dormant") {
                let family = table["family"].as_str().unwrap_or_default();
                dormant.insert((family, table["name"].as_str().unwrap_or_default()));
            }
        } else if let Some(chain) = object.get("chain") {
            if let (Some(hook), Some(name)) = (hook_of(chain), chain["name"].as_str()) {
                bases.push((table_of(chain), hook, name, chain));
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
                .extend(read_rule(rule, &sets));
        }
    }
    let mut chains: Vec<BaseChain> = bases
        .into_iter()
        .filter(|(table, ..)| !of_iptables.contains(table) && !dormant.contains(table))
        .map(|((family, table), hook, name, chain)| BaseChain {
            hook,
            nat: chain["type"] == "nat",
            priority: chain["prio"].as_i64().unwrap_or(0),
            tool: Tool::Nft {
                family: family.to_owned(),
                table: table.to_owned(),
            },
            ipv6: match family {
                "ip" => Some(false),
                "ip6" => Some(true),
                _ => None,
            },
            name: name.to_owned(),
            drops: chain["policy"] == "drop",
            device: chain["dev"].as_str().map(str::to_owned),
            chains: tables.get(&(family, table)).cloned().unwrap_or_default(),
        })
        .collect();
    chains.sort_by_key(|chain| (chain.hook, chain.priority));
    let mut of_iptables: Vec<String> = of_iptables
        .into_iter()
        .map(|(family, table)| format!("{family} {table}"))
        .collect();
    of_iptables.sort();
    Ok(Ruleset {
        chains,
        of_iptables,
    })
}

/// The hook of a base chain that sees IP packets; `None` for other chains, and for those of
/// families that see frames (bridge, arp).
fn hook_of(chain: &Value) -> Option<Hook> {
    let family = chain["family"].as_str()?;
    if !matches!(family, "ip" | "ip6" | "inet" | "netdev") {
        return None;
    }
    Some(match chain["hook"].as_str()? {
        "ingress" => Hook::Ingress,
        "prerouting" => Hook::Prerouting,
        "input" => Hook::Input,
        "forward" => Hook::Forward,
        "output" => Hook::Output,
        "postrouting" => Hook::Postrouting,
        "egress" => Hook::Egress,
        _ => return None,
    })
}

/// Family and name of the table that a chain, set or rule is in.
fn table_of(object: &Value) -> TableKey<'_> {
    (
        object["family"].as_str().unwrap_or_default(),
        object["table"].as_str().unwrap_or_default(),
    )
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[][..], Vec::as_slice)
}

fn is_of_iptables(rule: &Value) -> bool {
    list(&rule["expr"])
        .iter()
        .any(|expression| expression.get("xt").is_some())
}

/// Conditions of one rule, and what it may do: a verdict map does several things.
fn read_rule(rule: &Value, sets: &Sets<'_>) -> Vec<Rule> {
    let (family, table) = table_of(rule);
    let values = Values {
        table: (family, table),
        sets,
    };
    let mut matches = Vec::new();
    let mut verdict = Verdict::Continue;
    let mut mapped = Vec::new();
    for expression in list(&rule["expr"]) {
        let Some((kind, value)) = expression
            .as_object()
            .and_then(|object| object.iter().next())
        else {
            continue;
        };
        match kind.as_str() {
            "match" => matches.extend(values.read_match(value)),
            "vmap" => mapped.extend(values.read_map(value)),
            // Not `counter`, `comment` or `log`: those match everything.
            "counter" | "comment" | "log" | "mangle" | "notrack" => {}
            _ => match read_verdict(kind, value) {
                Some(found) => verdict = found,
                // Limits, iptables' own matches: something may or may not match.
                None => matches.push(Match::Unknown),
            },
        }
    }
    let name = format!(
        "table {family} {table}, chain {}, rule handle {}",
        rule["chain"].as_str().unwrap_or_default(),
        rule["handle"].as_u64().unwrap_or_default()
    );
    let mut rules: Vec<Rule> = mapped
        .into_iter()
        .map(|(more, verdict)| Rule {
            matches: matches.iter().cloned().chain(more).collect(),
            verdict,
            name: name.clone(),
        })
        .collect();
    rules.push(Rule {
        matches,
        verdict,
        name,
    });
    rules
}

fn read_verdict(kind: &str, value: &Value) -> Option<Verdict> {
    let target = || value["target"].as_str().unwrap_or_default().to_owned();
    Some(match kind {
        "masquerade" | "snat" | "dnat" | "redirect" => Verdict::Rewrite,
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Drop,
        "return" => Verdict::Return,
        "continue" => Verdict::Continue,
        "jump" => Verdict::Jump(target()),
        "goto" => Verdict::Goto(target()),
        _ => return None,
    })
}

/// Reads values, and knows the sets of their table.
#[derive(Clone, Copy)]
struct Values<'a> {
    table: TableKey<'a>,
    sets: &'a Sets<'a>,
}

impl Values<'_> {
    fn read_match(self, value: &Value) -> Vec<Match> {
        let negated = match value["op"].as_str() {
            Some("==" | "in") => false,
            Some("!=") => true,
            _ => return vec![Match::Unknown],
        };
        self.read_condition(&value["left"], &value["right"], negated)
    }

    /// Each element of a verdict map with its verdict. The map's keys exclude each other, so that
    /// the order is of no importance.
    fn read_map(self, value: &Value) -> Vec<(Vec<Match>, Verdict)> {
        let data = &value["data"];
        let elements = self.elements(data.get("set").unwrap_or(data));
        let unreadable = || vec![(vec![Match::Unknown], Verdict::Drop)];
        let Some(elements) = elements else {
            return unreadable();
        };
        let read = |element: &Value| {
            let [key, verdict] = list(element) else {
                return None;
            };
            let (kind, target) = verdict.as_object()?.iter().next()?;
            let matches = self.read_condition(&value["key"], key, false);
            Some((matches, read_verdict(kind, target)?))
        };
        elements
            .into_iter()
            .map(read)
            .collect::<Option<Vec<_>>>()
            .unwrap_or_else(unreadable)
    }

    fn read_condition(self, left: &Value, right: &Value, negated: bool) -> Vec<Match> {
        if let Some(payload) = left.get("payload") {
            return self.read_payload(payload, right, negated);
        }
        if left["rt"]["key"] == "ipsec" {
            return vec![flag(right, negated).map_or(Match::Unknown, Match::Protected)];
        }
        if left["ct"]["key"] == "state" {
            return vec![
                self.states(right)
                    .map_or(Match::Unknown, |states| Match::State { negated, states }),
            ];
        }
        let Some(key) = left["meta"]["key"].as_str() else {
            return vec![Match::Unknown];
        };
        let interface = |direction| {
            self.words(right).map(|names| Match::Interface {
                direction,
                negated,
                names,
            })
        };
        let found = match key {
            "nfproto" => match right.as_str() {
                Some("ipv4") => Some(Match::Ipv6(negated)),
                Some("ipv6") => Some(Match::Ipv6(!negated)),
                _ => None,
            },
            "protocol" => match right.as_str() {
                Some("ip") => Some(Match::Ipv6(negated)),
                Some("ip6") => Some(Match::Ipv6(!negated)),
                _ => None,
            },
            "l4proto" => self.protocols(right, negated),
            "iif" | "iifname" => interface(Direction::In),
            "oif" | "oifname" => interface(Direction::Out),
            "ipsec" | "secpath" => flag(right, negated).map(Match::Decrypted),
            _ => None,
        };
        vec![found.unwrap_or(Match::Unknown)]
    }

    fn read_payload(self, payload: &Value, right: &Value, negated: bool) -> Vec<Match> {
        let protocol = payload["protocol"].as_str().unwrap_or_default();
        let field = payload["field"].as_str().unwrap_or_default();
        let ranges = || self.all(right, read_range);
        let found = match (protocol, field) {
            ("ip" | "ip6", "saddr") => ranges().map(|ranges| Match::Source { negated, ranges }),
            ("ip" | "ip6", "daddr") => {
                ranges().map(|ranges| Match::Destination { negated, ranges })
            }
            ("ip", "protocol") | ("ip6", "nexthdr") => self.protocols(right, negated),
            (_, "sport") => self
                .all(right, read_ports)
                .map(|ports| Match::SourcePort { negated, ports }),
            (_, "dport") => self
                .all(right, read_ports)
                .map(|ports| Match::DestinationPort { negated, ports }),
            _ => None,
        };
        // Whoever asks for a field of a header asks for the header.
        let implied = match protocol {
            "ip" => Some(Match::Ipv6(false)),
            "ip6" => Some(Match::Ipv6(true)),
            other => number_of(other).map(|number| Match::Protocol {
                negated: false,
                protocols: vec![number],
            }),
        };
        implied
            .into_iter()
            .chain([found.unwrap_or(Match::Unknown)])
            .collect()
    }

    fn protocols(self, right: &Value, negated: bool) -> Option<Match> {
        let read = |value: &Value| match value {
            Value::String(name) => number_of(name).or_else(|| name.parse().ok()),
            other => u8::try_from(other.as_u64()?).ok(),
        };
        let protocols = self.all(right, read)?;
        Some(Match::Protocol { negated, protocols })
    }

    fn states(self, right: &Value) -> Option<Vec<Option<State>>> {
        self.all(right, |value| {
            Some(match value.as_str()? {
                "new" => Some(State::New),
                "established" => Some(State::Established),
                _ => None,
            })
        })
    }

    fn words(self, right: &Value) -> Option<Vec<String>> {
        self.all(right, |value| value.as_str().map(str::to_owned))
    }

    /// All elements of what stands on the right of an operator: one value, an anonymous set or
    /// list, or a named set.
    fn all<T>(self, right: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        self.elements(right.get("set").unwrap_or(right))?
            .into_iter()
            .map(|element| {
                // Elements with a timeout, a counter or a comment.
                let value = element.get("elem").and_then(|elem| elem.get("val"));
                read(value.unwrap_or(element))
            })
            .collect()
    }

    fn elements<'v>(self, value: &'v Value) -> Option<Vec<&'v Value>>
    where
        Self: 'v,
    {
        if let Some(name) = value.as_str().and_then(|text| text.strip_prefix('@')) {
            let set: &'v Value = self.sets.get(&(self.table, name))?;
            return Some(list(set).iter().collect());
        }
        Some(match value {
            Value::Array(elements) => elements.iter().collect(),
            single => vec![single],
        })
    }
}

/// `exists` and `missing`.
fn flag(right: &Value, negated: bool) -> Option<bool> {
    let exists = match right {
        Value::Bool(exists) => *exists,
        Value::Number(number) => number.as_u64()? != 0,
        Value::String(word) => match word.as_str() {
            "exists" => true,
            "missing" => false,
            _ => return None,
        },
        _ => return None,
    };
    Some(exists != negated)
}

/// IANA's numbers of protocols that rules for IPsec, and rules before them, are about.
fn number_of(name: &str) -> Option<u8> {
    Some(match name {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmpv6" | "ipv6-icmp" => 58,
        "sctp" => 132,
        "udplite" => 136,
        _ => return None,
    })
}

fn read_ports(value: &Value) -> Option<Ports> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    if let Some([first, last]) = value.get("range").map(list) {
        return Some(port(first)?..=port(last)?);
    }
    let port = port(value)?;
    Some(port..=port)
}

fn read_range(value: &Value) -> Option<Range> {
    if let Some(prefix) = value.get("prefix") {
        let address: IpAddr = prefix["addr"].as_str()?.parse().ok()?;
        let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
        return Some(IpNet::new(address, length).ok()?.into());
    }
    if let Some([first, last]) = value.get("range").map(list) {
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
    use super::super::{Fate, Packet};
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
        let found = read(RULESET.as_bytes()).expect("JSON").chains;
        assert_eq!(found.len(), 1);
        found[0].rewriting(&Packet {
            to_protect: Some(true),
            ..Packet::between(
                source.parse().expect("network"),
                destination.parse().expect("network"),
            )
        })
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
            let found = read(json.as_bytes()).expect("JSON").chains;
            assert!(found.is_empty(), "{json}");
        }
    }

    /// What one input chain, which drops what it does not decide, makes of packets from 1.2.3.4.
    fn input(rules: &[&str], packet: Packet) -> Fate {
        let mut objects = vec![
            r#"{"set": {"family": "inet", "name": "peers", "table": "f", "type": "ipv4_addr",
                "elem": ["1.2.3.4", {"elem": {"val": "5.6.7.8", "timeout": 9}}]}}"#
                .to_owned(),
            r#"{"chain": {"family": "inet", "table": "f", "name": "in", "type": "filter",
                "hook": "input", "prio": 0, "policy": "drop"}}"#
                .to_owned(),
        ];
        objects.extend(rules.iter().zip(1..).map(|(expr, handle)| {
            format!(
                r#"{{"rule": {{"family": "inet", "table": "f", "chain": "in", "handle": {handle},
                    "expr": {expr}}}}}"#
            )
        }));
        let json = format!(r#"{{"nftables": [{}]}}"#, objects.join(","));
        let ruleset = read(json.as_bytes()).expect("JSON");
        assert_eq!(ruleset.chains.len(), 1);
        ruleset.chains[0].fate(&Packet {
            source: Some("1.2.3.4/32".parse().expect("address")),
            input: Some("eth0".to_owned()),
            ..packet
        })
    }

    fn ike(state: State) -> Packet {
        Packet {
            protocol: Some(17),
            destination_port: Some(500),
            state: Some(state),
            ..Packet::default()
        }
    }

    fn esp() -> Packet {
        Packet {
            protocol: Some(50),
            ..ike(State::New)
        }
    }

    fn policy() -> Fate {
        Fate::Dropped("the policy of table inet f, chain in".to_owned())
    }

    fn rule(handle: u8) -> String {
        format!("table inet f, chain in, rule handle {handle}")
    }

    const ESTABLISHED: &str = r#"[{"match": {"op": "in", "left": {"ct": {"key": "state"}},
        "right": ["established", "related"]}}, {"accept": null}]"#;
    const STATES: &str = r#"[{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set":
        [["invalid", {"drop": null}], ["established", {"accept": null}]]}}}]"#;
    const PORTS: &str = r#"[{"match": {"op": "==", "left": {"meta": {"key": "iifname"}},
        "right": "eth0"}}, {"match": {"op": "==", "left": {"payload": {"protocol": "udp",
        "field": "dport"}}, "right": {"set": [{"range": [499, 501]}, 4500]}}}, {"accept": null}]"#;
    const NO_ESP: &str = r#"[{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}},
        "right": "esp"}}, {"counter": null}, {"drop": null}]"#;
    const PEERS: &str = r#"[{"match": {"op": "==", "left": {"payload": {"protocol": "ip",
        "field": "saddr"}}, "right": "@peers"}}, {"accept": null}]"#;
    const MARK: &str = r#"[{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 5}},
        {"accept": null}]"#;

    #[test]
    fn answers_pass_where_first_packets_do_not() {
        for rules in [ESTABLISHED, STATES] {
            assert_eq!(input(&[rules], ike(State::New)), policy());
            assert_eq!(input(&[rules], ike(State::Established)), Fate::Passes);
        }
    }

    #[test]
    fn a_set_of_ports_lets_ike_in_and_not_esp() {
        assert_eq!(input(&[PORTS], ike(State::New)), Fate::Passes);
        assert_eq!(input(&[PORTS], esp()), policy());
        let elsewhere = Packet {
            destination_port: Some(600),
            ..ike(State::New)
        };
        assert_eq!(input(&[PORTS], elsewhere), policy());
    }

    #[test]
    fn a_rule_that_drops_esp_is_named_and_an_accept_before_it_counts() {
        assert_eq!(input(&[NO_ESP, PEERS], esp()), Fate::Dropped(rule(1)));
        assert_eq!(input(&[PEERS, NO_ESP], esp()), Fate::Passes);
    }

    #[test]
    fn what_cannot_be_judged_is_said_and_not_guessed() {
        assert_eq!(
            input(&[MARK, NO_ESP], esp()),
            Fate::Unclear {
                by: rule(2),
                doubt: rule(1)
            }
        );
        let limited = r#"[{"limit": {"rate": 5, "per": "second"}}, {"drop": null}]"#;
        assert_eq!(
            input(&[limited, PEERS], esp()),
            Fate::Unclear {
                by: rule(1),
                doubt: rule(1)
            }
        );
    }

    #[test]
    fn chains_of_a_dormant_table_and_of_iptables_are_left_out() {
        let json = r#"{"nftables": [
            {"table": {"family": "ip", "name": "z", "flags": ["dormant"]}},
            {"chain": {"family": "ip", "table": "z", "name": "in", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input"}},
            {"rule": {"family": "ip", "table": "filter", "chain": "INPUT",
                      "expr": [{"xt": {"type": "match", "name": "u32"}}, {"drop": null}]}}]}"#;
        let ruleset = read(json.as_bytes()).expect("JSON");
        assert!(ruleset.chains.is_empty());
        assert_eq!(ruleset.of_iptables, ["ip filter"]);
    }

    #[test]
    fn the_destination_of_ike_is_seen_to_be_changed() {
        let json = r#"{"nftables": [
            {"chain": {"family": "ip", "table": "n", "name": "pre", "type": "nat",
                       "hook": "prerouting", "prio": -100}},
            {"rule": {"family": "ip", "table": "n", "chain": "pre", "handle": 3, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}},
                           "right": 500}}, {"redirect": {"port": 600}}]}}]}"#;
        let chains = read(json.as_bytes()).expect("JSON").chains;
        let found = chains[0].rewriting(&ike(State::New));
        assert_eq!(
            found.as_deref(),
            Some("table ip n, chain pre, rule handle 3")
        );
        assert_eq!(chains[0].rewriting(&esp()), None);
    }
}
