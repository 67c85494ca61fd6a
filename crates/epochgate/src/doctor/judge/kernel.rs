//! What the kernel can do.

use std::collections::BTreeSet;

use epochgate_controller::config::{CIPHERS, Esn, NatTraversal};

use super::{AS_ROOT, family, listed};
use crate::doctor::facts::{Answer, Facts, cipher_name};
use crate::doctor::finding::{Finding, Topic, Verdict};

/// One thing that the kernel may have.
struct Feature<'a> {
    check: &'static str,
    name: String,
    answer: &'a Answer,
    /// Options of the kernel that it takes.
    options: &'static [&'static str],
    modules: &'static str,
    /// What it is if the kernel has not got it.
    without: Verdict,
    /// What that means.
    meaning: &'static str,
}

pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    release(facts, findings);
    esp(facts, findings);
    ciphers(facts, findings);
    others(facts, findings);
    if !facts.kernel.has_statistics {
        findings.push(
            Finding::new(
                Topic::Kernel,
                "kernel.statistics",
                Verdict::Warn,
                "the kernel does not count what XFRM drops",
            )
            .because("There is no /proc/net/xfrm_stat, so nobody can see why packets are lost.")
            .cure("boot a kernel with CONFIG_XFRM_STATISTICS"),
        );
    }
}

fn release(facts: &Facts, findings: &mut Vec<Finding>) {
    let lockdown = match facts.kernel.lockdown.as_deref() {
        Some("confidentiality") => "; locked down, so that it shows no SA's keys",
        Some(_) | None => "",
    };
    let release = match facts.kernel.release.as_str() {
        "" => "of unknown release",
        release => release,
    };
    let summary = format!("Linux {release}{lockdown}");
    findings.push(Finding::new(
        Topic::Kernel,
        "kernel.release",
        Verdict::Good,
        summary,
    ));
}

fn esp(facts: &Facts, findings: &mut Vec<Finding>) {
    let probe = &facts.kernel.probe;
    let used = facts.outer_families();
    for ipv6 in [false, true] {
        let without = if used.contains(&ipv6) {
            Verdict::Bad
        } else {
            Verdict::Warn
        };
        let (check, answer, options, modules): (_, _, &[_], _) = if ipv6 {
            (
                "kernel.esp-ipv6",
                &probe.esp_v6,
                &["XFRM_USER", "INET6_ESP"],
                "xfrm_user esp6",
            )
        } else {
            (
                "kernel.esp-ipv4",
                &probe.esp_v4,
                &["XFRM_USER", "INET_ESP"],
                "xfrm_user esp4",
            )
        };
        findings.push(feature(
            facts,
            &Feature {
                check,
                name: format!("ESP over {}", family(ipv6)),
                answer,
                options,
                modules,
                without,
                meaning: "No SA can be installed.",
            },
        ));
    }
    if probe.esp_v4 == Answer::Yes
        && let Answer::No(words) | Answer::Failed(words) = &probe.policy
    {
        findings.push(
            Finding::new(
                Topic::Kernel,
                "kernel.policies",
                Verdict::Bad,
                "the kernel takes no policy",
            )
            .because(words.clone())
            .cure("boot a kernel with CONFIG_XFRM_USER"),
        );
    }
}

fn feature(facts: &Facts, feature: &Feature<'_>) -> Finding {
    let new = |verdict, summary: String| {
        let finding = Finding::new(Topic::Kernel, feature.check, verdict, summary);
        if feature.without == Verdict::Bad {
            finding.essential()
        } else {
            finding
        }
    };
    let name = &feature.name;
    let options: Vec<_> = feature
        .options
        .iter()
        .map(|option| format!("CONFIG_{option}"))
        .collect();
    let lacking = |how: String| {
        new(feature.without, format!("{name}: the kernel cannot"))
            .because(format!("{} {how}", feature.meaning))
            .cure(format!("modprobe -a {}", feature.modules))
            .cure(format!(
                "if that fails, boot a kernel with {}",
                options.join(" and ")
            ))
    };
    let why = match feature.answer {
        Answer::Yes => return new(Verdict::Good, format!("{name}: tried, and it works")),
        Answer::No(words) => return lacking(format!("It was tried: {words}.")),
        Answer::Failed(words) => words.clone(),
        Answer::NotAsked => facts
            .kernel
            .probe
            .refused
            .clone()
            .unwrap_or_else(|| "it was not asked".to_owned()),
    };
    let build = &facts.kernel.build;
    let Some(source) = &build.source else {
        let finding = new(
            Verdict::Unknown,
            format!("{name}: it is not known whether the kernel can"),
        )
        .because(format!(
            "It could not be tried ({why}), and how the kernel was built can't be read either."
        ));
        return if facts.is_root {
            finding
        } else {
            finding.cure(AS_ROOT)
        };
    };
    let missing: Vec<&str> = feature
        .options
        .iter()
        .zip(&options)
        .filter(|(option, _)| !build.options.contains_key(**option))
        .map(|(_, shown)| shown.as_str())
        .collect();
    if missing.is_empty() {
        return new(
            Verdict::Good,
            format!("{name}: the kernel was built with it, says {source}"),
        );
    }
    lacking(format!("{source} does not have {}.", missing.join(", ")))
}

fn ciphers(facts: &Facts, findings: &mut Vec<Finding>) {
    let probe = &facts.kernel.probe;
    // Without ESP no cipher works, which is said already.
    if probe.esp_v4 != Answer::Yes && probe.esp_v6 != Answer::Yes {
        return;
    }
    let wanted: BTreeSet<&str> = if facts.is_about_tunnels() {
        facts
            .tunnels()
            .flat_map(|tunnel| &tunnel.esp.ciphers)
            .map(|cipher| cipher_name(*cipher))
            .collect()
    } else {
        CIPHERS.iter().map(|cipher| cipher_name(*cipher)).collect()
    };
    let works = |name: &str| probe.ciphers.get(name) == Some(&Answer::Yes);
    for tunnel in facts.tunnels() {
        let names: Vec<_> = tunnel.esp.ciphers.iter().map(|c| cipher_name(*c)).collect();
        if !names.iter().any(|name| works(name)) {
            findings.push(
                Finding::new(
                    Topic::Kernel,
                    "kernel.ciphers",
                    Verdict::Bad,
                    "the kernel has none of the tunnel's ESP algorithms",
                )
                .of(&tunnel.name)
                .because(format!("It was tried: {}.", listed(names.iter().copied())))
                .cure("modprobe -a gcm ccm chacha20poly1305 authenc cbc echainiv seqiv"),
            );
        }
    }
    let lacking: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|name| matches!(probe.ciphers.get(*name), Some(Answer::No(_))))
        .collect();
    if lacking.is_empty() {
        let all = wanted.iter().all(|name| works(name));
        if all {
            let summary = format!("ESP algorithms work: {}", listed(wanted.iter().copied()));
            findings.push(Finding::new(
                Topic::Kernel,
                "kernel.ciphers",
                Verdict::Good,
                summary,
            ));
        }
    } else if lacking.len() < wanted.len() || !facts.is_about_tunnels() {
        findings.push(
            Finding::new(
                Topic::Kernel,
                "kernel.ciphers",
                Verdict::Warn,
                format!(
                    "the kernel lacks ESP algorithms: {}",
                    listed(lacking.iter().copied())
                ),
            )
            .because("A peer that chooses one of them gets no Child SA.")
            .cure("take them out of the tunnel's algorithms.esp.cipher, or load their modules"),
        );
    }
    let slow: Vec<String> = wanted
        .iter()
        .filter_map(|name| Some((name, probe.drivers.get(*name)?)))
        .filter(|(_, driver)| driver.contains("generic"))
        .map(|(name, driver)| format!("{name} ({driver})"))
        .collect();
    if !slow.is_empty() {
        findings.push(
            Finding::new(
                Topic::Kernel,
                "kernel.acceleration",
                Verdict::Warn,
                "ESP algorithms run without the processor's instructions for them",
            )
            .because(format!(
                "It works, and costs more CPU: {}.",
                slow.join(", ")
            ))
            .cure(
                "load the accelerated module: aesni_intel (x86), aes_ce_blk and ghash_ce (arm64)",
            ),
        );
    }
}

fn others(facts: &Facts, findings: &mut Vec<Finding>) {
    let probe = &facts.kernel.probe;
    // Without ESP there is nothing more to say.
    if probe.esp_v4 != Answer::Yes {
        return;
    }
    let behind_nat = !facts.is_about_tunnels()
        || facts
            .tunnels()
            .any(|tunnel| tunnel.nat_traversal == NatTraversal::Auto);
    if behind_nat {
        for ipv6 in facts.outer_families() {
            findings.push(feature(
                facts,
                &Feature {
                    check: "kernel.udp-encapsulation",
                    name: format!("ESP in UDP over {}, for NATs", family(ipv6)),
                    answer: if ipv6 {
                        &probe.encapsulation_v6
                    } else {
                        &probe.encapsulation_v4
                    },
                    options: if ipv6 { &["INET6_ESP"] } else { &["INET_ESP"] },
                    modules: if ipv6 { "esp6" } else { "esp4" },
                    without: Verdict::Warn,
                    meaning: "No tunnel works through a NAT.",
                },
            ));
        }
    }
    let required = facts.tunnels().any(|tunnel| tunnel.esp.esn == Esn::Require);
    if probe.extended_numbers != Answer::Yes || required {
        findings.push(feature(
            facts,
            &Feature {
                check: "kernel.esn",
                name: "Extended sequence numbers".to_owned(),
                answer: &probe.extended_numbers,
                options: &["XFRM_USER"],
                modules: "xfrm_user",
                without: if required {
                    Verdict::Bad
                } else {
                    Verdict::Warn
                },
                meaning: "A Child SA with them can't be installed: set algorithms.esp.esn to \"off\".",
            },
        ));
    }
    let routed = facts.tunnels().any(|tunnel| tunnel.interface.is_some());
    findings.push(feature(
        facts,
        &Feature {
            check: "kernel.interface",
            name: "xfrm interfaces, for route-based tunnels".to_owned(),
            answer: &probe.interface,
            options: &["XFRM_INTERFACE"],
            modules: "xfrm_interface",
            without: if routed { Verdict::Bad } else { Verdict::Warn },
            meaning: "A tunnel with `interface` does not work.",
        },
    ));
}
