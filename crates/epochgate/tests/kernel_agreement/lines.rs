//! SAs and policies as lines for `ip -batch`.

use std::fmt::Write as _;

use epochgate_xfrm::{
    Integrity, Key, Limits, Mark, Policy, PolicyAction, PolicyFlags, Protection, Sa, SaExtraFlags,
    SaFlags, Selector,
};

/// As `ip xfrm` wants it.
fn selector_words(selector: &Selector) -> String {
    let mut line = format!("src {} dst {}", selector.source(), selector.destination());
    if selector.protocol != 0 {
        let _ = write!(line, " proto {}", selector.protocol);
    }
    for (name, port) in [
        ("sport", selector.source_port),
        ("dport", selector.destination_port),
    ] {
        if port.mask != 0 {
            let _ = write!(line, " {name} {}", port.port);
        }
    }
    line
}

fn limit_words(limits: &Limits) -> String {
    let mut line = String::new();
    for (name, limit) in [("soft", &limits.soft), ("hard", &limits.hard)] {
        for (unit, number) in [
            ("time", limit.seconds_since_added),
            ("time-use", limit.seconds_since_used),
            ("byte", limit.bytes),
            ("packet", limit.packets),
        ] {
            if let Some(number) = number {
                let _ = write!(line, " limit {unit}-{name} {number}");
            }
        }
    }
    line
}

pub(crate) fn hex(key: &Key) -> String {
    match key.expose() {
        [] => "\"\"".to_owned(),
        bytes => bytes
            .iter()
            .fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

pub(crate) fn sa_line(sa: &Sa) -> String {
    let mut line = format!(
        "xfrm state add src {} dst {} proto {} spi {} reqid {} mode {}",
        sa.source,
        sa.destination,
        sa.protocol,
        sa.spi.expect("an SPI"),
        sa.reqid,
        sa.mode
    );
    let auth = |i: &Integrity| {
        let bits = i.truncation_bits.expect("said");
        format!(" auth-trunc {} {} {bits}", i.name, hex(&i.key))
    };
    match &sa.protection {
        Protection::Larval => {}
        Protection::Aead(a) => {
            let _ = write!(line, " aead {} {} {}", a.name, hex(&a.key), a.icv_bits);
        }
        Protection::Encryption { cipher, integrity } => {
            let _ = write!(line, " enc {} {}", cipher.name, hex(&cipher.key));
            line.push_str(&integrity.as_ref().map(auth).unwrap_or_default());
        }
        Protection::Integrity(integrity) => line.push_str(&auth(integrity)),
        Protection::Compression(compression) => {
            let _ = write!(line, " comp {}", compression.name);
        }
    }
    if let Some(encap) = sa.encap {
        let (from, to) = (encap.source_port, encap.destination_port);
        let nowhere = if sa.source.is_ipv4() { "0.0.0.0" } else { "::" };
        let _ = write!(line, " encap espinudp {from} {to} {nowhere}");
    }
    let _ = write!(line, " replay-window {}", sa.replay_window.packets);
    let flags = [
        (sa.flags.contains(SaFlags::NO_ECN), "noecn"),
        (sa.flags.contains(SaFlags::DECAP_DSCP), "decap-dscp"),
        (sa.flags.contains(SaFlags::NO_PMTU_DISCOVERY), "nopmtudisc"),
        (sa.flags.contains(SaFlags::ICMP), "icmp"),
        (sa.flags.contains(SaFlags::AF_UNSPEC), "af-unspec"),
        (sa.flags.contains(SaFlags::ALIGN4), "align4"),
        (sa.replay_window.extended, "esn"),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name)
        .collect();
    if !flags.is_empty() {
        let _ = write!(line, " flag {}", flags.join(" "));
    }
    if sa.extra_flags.contains(SaExtraFlags::DONT_ENCAP_DSCP) {
        line.push_str(" extra-flag dont-encap-dscp");
    }
    for (name, mark) in [("mark", sa.mark), ("output-mark", sa.output_mark)] {
        if let Some(Mark { value, mask }) = mark {
            let _ = write!(line, " {name} {value:#x} mask {mask:#x}");
        }
    }
    if let Some(if_id) = sa.if_id {
        let _ = write!(line, " if_id {if_id}");
    }
    if let Some(selector) = &sa.selector {
        let _ = write!(line, " sel {}", selector_words(selector));
    }
    line + &limit_words(&sa.limits) + "\n"
}

pub(crate) fn policy_line(policy: &Policy) -> String {
    let mut line = format!(
        "xfrm policy add {} dir {} priority {}",
        selector_words(&policy.selector),
        policy.direction,
        policy.priority
    );
    if policy.action == PolicyAction::Block {
        line.push_str(" action block");
    }
    let flags = [
        (policy.flags.contains(PolicyFlags::LOCAL_OK), "localok"),
        (policy.flags.contains(PolicyFlags::ICMP), "icmp"),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| name)
        .collect();
    if !flags.is_empty() {
        let _ = write!(line, " flag {}", flags.join(" "));
    }
    if let Some(Mark { value, mask }) = policy.mark {
        let _ = write!(line, " mark {value:#x} mask {mask:#x}");
    }
    if let Some(if_id) = policy.if_id {
        let _ = write!(line, " if_id {if_id}");
    }
    line.push_str(&limit_words(&policy.limits));
    for template in &policy.templates {
        let spi = template
            .spi
            .map(|spi| format!(" spi {spi}"))
            .unwrap_or_default();
        let level = if template.optional { "use" } else { "required" };
        let _ = write!(
            line,
            " tmpl src {} dst {} proto {}{spi} reqid {} mode {} level {level}",
            template.source, template.destination, template.protocol, template.reqid, template.mode
        );
    }
    line + "\n"
}
