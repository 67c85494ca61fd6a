//! On a real kernel: `epochgate xfrm` and `ip xfrm` agree, attribute by attribute, about 1,000 random
//! SAs and 1,000 random policies, whichever of the two programs wrote them.
//!
//! The same entries are written into two namespaces: into one by `ip xfrm`, into the other by
//! crates/xfrm. In both, the JSON must be what was written, and the text of `ip xfrm` must be the
//! same, line by line.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod check;
#[path = "../common/mod.rs"]
mod common;
mod lines;
mod random;

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc;

use check::{check_policy, check_sa};
use common::{in_own_namespace, ip, ip_batch, json};
use epochgate_xfrm::{Op, Policy, Sa, Socket};
use lines::{policy_line, sa_line};
use random::{Chance, available, random_policy, random_sa};
use serde_json::Value;

/// How many SAs, and how many policies.
const ENTRIES: u32 = 1_000;
/// Where chance begins. The same seed gives the same entries.
const SEED: u64 = 0x4547_2026;
/// Algorithms that the guest must have at least, or the test would show little.
const ALGORITHMS_MIN: usize = 12;

/// What one namespace showed.
struct Shown {
    states: Vec<Value>,
    policies: Vec<Value>,
    ip_states: BTreeMap<String, Vec<String>>,
    ip_policies: BTreeMap<String, Vec<String>>,
}

/// Both programs' lists of the namespace that this thread is in.
fn show() -> Shown {
    let entries = |list: Value, name: &str| {
        assert_eq!(list["schema"], 1);
        assert_eq!(list["unreadable"], 0);
        assert_eq!(list["changed_while_read"], false);
        list[name].as_array().expect("a list").clone()
    };
    Shown {
        states: entries(json("xfrm state --json --show-keys"), "states"),
        policies: entries(json("xfrm policy --json"), "policies"),
        ip_states: blocks(&ip("-s xfrm state"), 2),
        ip_policies: blocks(&ip("-s xfrm policy"), 2),
    }
}

/// The blocks of `ip xfrm`, each under its first lines, without what time and the kernel's own
/// numbers change.
fn blocks(text: &str, key_lines: usize) -> BTreeMap<String, Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(char::is_whitespace) {
            all.push(Vec::new());
        }
        let is_time = line.trim_start().starts_with("add ");
        let words: Vec<&str> = line.split(' ').collect();
        let mut kept = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "index" {
                words.next();
            } else {
                kept.push(word);
            }
        }
        if !is_time && let Some(block) = all.last_mut() {
            block.push(kept.join(" "));
        }
    }
    let count = all.len();
    let keyed = all.into_iter().map(|block| {
        let key = block
            .iter()
            .take(key_lines)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        // Policies of one selector differ in what follows.
        (format!("{key}\n{}", block.join("\n")), block)
    });
    let keyed: BTreeMap<String, Vec<String>> = keyed.collect();
    assert_eq!(keyed.len(), count, "two blocks are the same");
    keyed
}

/// Without what time and the kernel's own numbers change.
fn timeless(list: &[Value]) -> Vec<Value> {
    let mut list = list.to_vec();
    for entry in &mut list {
        entry["index"] = Value::Null;
        entry["usage"]["added"] = Value::Null;
        entry["usage"]["age_seconds"] = Value::Null;
        for limit in ["soft", "hard"] {
            entry["limits"][limit]["left"] = Value::Null;
        }
        // Which of several that fit comes first is the kernel's.
        if let Some(partners) = entry["used_by"]["policies"].as_array_mut() {
            for partner in partners {
                partner["index"] = Value::Null;
            }
        }
    }
    list
}

/// Entries that the kernel tells apart: selector, direction, mark and if_id are a policy's identity.
fn distinct(policies: Vec<Policy>) -> Vec<Policy> {
    let mut seen = HashSet::new();
    policies
        .into_iter()
        .filter(|policy| seen.insert(policy.id()))
        .collect()
}

#[test]
fn ip_and_epochgate_agree_on_random_states_and_policies() {
    let (sender, receiver) = mpsc::channel();
    in_own_namespace(move || {
        let mut chance = Chance(SEED);
        let (v4s, v6s) = (available(true), available(false));
        let sas: Vec<Sa> = (0..ENTRIES)
            .map(|number| random_sa(&mut chance, number, &v4s, &v6s))
            .collect();
        let policies = distinct(
            (0..ENTRIES)
                .map(|_| random_policy(&mut chance, &sas))
                .collect(),
        );
        assert_eq!(
            policies.len(),
            ENTRIES as usize,
            "chance made a policy twice"
        );
        ip_batch(&sas.iter().map(sa_line).collect::<String>());
        ip_batch(&policies.iter().map(policy_line).collect::<String>());
        sender
            .send((sas, policies, show()))
            .expect("the test waits");
    });
    let (sas, policies, by_ip) = receiver.recv().expect("the namespace showed something");
    // The kernel lists the newest SA first, and so policies.
    assert_eq!(by_ip.states.len(), sas.len());
    for (sa, shown) in sas.iter().rev().zip(&by_ip.states) {
        check_sa(sa, shown);
    }
    assert_eq!(by_ip.policies.len(), policies.len());
    for (policy, shown) in policies.iter().rev().zip(&by_ip.policies) {
        check_policy(policy, shown);
    }
    let (sender, receiver) = mpsc::channel();
    in_own_namespace(move || {
        let mut socket = Socket::open().expect("a netlink socket");
        let sas: Vec<Op<'_>> = sas.iter().map(Op::AddSa).collect();
        let policies: Vec<Op<'_>> = policies.iter().map(Op::AddPolicy).collect();
        for result in socket
            .batch(&sas)
            .into_iter()
            .chain(socket.batch(&policies))
        {
            result.expect("the kernel takes it");
        }
        sender.send(show()).expect("the test waits");
    });
    let by_us = receiver.recv().expect("the namespace showed something");
    for (ours, theirs) in timeless(&by_us.states).iter().zip(timeless(&by_ip.states)) {
        assert_eq!(*ours, theirs);
    }
    for (ours, theirs) in timeless(&by_us.policies)
        .iter()
        .zip(timeless(&by_ip.policies))
    {
        assert_eq!(*ours, theirs);
    }
    assert_eq!(by_us.ip_states.len(), ENTRIES as usize);
    assert_eq!(by_us.ip_policies.len(), ENTRIES as usize);
    for (ours, theirs) in [
        (&by_us.ip_states, &by_ip.ip_states),
        (&by_us.ip_policies, &by_ip.ip_policies),
    ] {
        for (key, block) in ours {
            let theirs = theirs
                .get(key)
                .unwrap_or_else(|| panic!("ip does not have\n{key}"));
            assert_eq!(block, theirs);
        }
        assert_eq!(ours.len(), theirs.len());
    }
}
