//! Policies: `xfrm_userpolicy_info`, `xfrm_userpolicy_id`, `xfrm_user_tmpl` and their attributes.

use std::num::NonZeroU32;

use netlink_packet_core::Emitable;
use netlink_packet_xfrm::constants::{
    XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_POLICY_TYPE_SUB, XFRMA_IF_ID, XFRMA_LASTUSED,
    XFRMA_MARK, XFRMA_OFFLOAD_DEV, XFRMA_POLICY_TYPE, XFRMA_SEC_CTX, XFRMA_TMPL,
};
use netlink_packet_xfrm::{
    Address, Id, UserPolicyId, UserPolicyInfo, UserTemplate, XFRM_USER_POLICY_ID_LEN,
    XFRM_USER_POLICY_INFO_LEN, XFRM_USER_TEMPLATE_LEN,
};

use super::attribute::{self, put_mark, put_offload, put_security_context};
use super::writer::Writer;
use super::{
    array, family_of, ip_address, limits_from_wire, limits_to_wire, parsed, selector_from_wire,
    selector_to_wire, spi_to_wire, split, u32_from, u64_from, usage_from_wire,
};
use crate::{
    AlgorithmMasks, DecodeError, Mark, Mode, Policy, PolicyAction, PolicyDirection, PolicyEntry,
    PolicyFlags, PolicyId, PolicyKey, Protocol, Reqid, Selector, Spi, Template,
};

/// `struct xfrm_userpolicy_type`: a byte, a 16-bit number, a byte.
const POLICY_TYPE_LENGTH: usize = 6;

/// Writes the body of XFRM_MSG_NEWPOLICY or XFRM_MSG_UPDPOLICY. The error says what the kernel's
/// format has no way to express.
pub(crate) fn put_policy(writer: &mut Writer, policy: &Policy) -> Result<(), &'static str> {
    if policy.templates.len() > Policy::MAX_TEMPLATES {
        return Err("a policy has at most 6 templates");
    }
    writer.structure(&info_to_wire(policy));
    if !policy.templates.is_empty() {
        let templates = templates_to_wire(&policy.templates)?;
        writer.attribute(XFRMA_TMPL, |writer| {
            for template in &templates {
                writer.structure(template);
            }
        });
    }
    put_scope(writer, policy.mark, policy.if_id, policy.sub_policy);
    put_offload(writer, policy.offload.as_ref());
    put_security_context(writer, policy.security_context.as_ref())?;
    for raw in &policy.other {
        writer.attribute_bytes(raw.kind, &raw.value);
    }
    Ok(())
}

fn put_scope(writer: &mut Writer, mark: Option<Mark>, if_id: Option<NonZeroU32>, sub_policy: bool) {
    put_mark(writer, XFRMA_MARK, mark);
    if let Some(if_id) = if_id {
        writer.attribute_u32(XFRMA_IF_ID, if_id.get());
    }
    if sub_policy {
        writer.attribute_bytes(XFRMA_POLICY_TYPE, &[XFRM_POLICY_TYPE_SUB, 0, 0, 0, 0, 0]);
    }
}

pub(crate) fn info_to_wire(policy: &Policy) -> UserPolicyInfo {
    UserPolicyInfo {
        selector: selector_to_wire(&policy.selector),
        lifetime_cfg: limits_to_wire(&policy.limits),
        priority: policy.priority,
        index: policy.index,
        direction: policy.direction.number(),
        action: match policy.action {
            PolicyAction::Allow => XFRM_POLICY_ALLOW,
            PolicyAction::Block => XFRM_POLICY_BLOCK,
        },
        flags: policy.flags.bits(),
        share: policy.share,
        ..UserPolicyInfo::default()
    }
}

fn templates_to_wire(templates: &[Template]) -> Result<Vec<UserTemplate>, &'static str> {
    templates.iter().map(template_to_wire).collect()
}

fn template_to_wire(template: &Template) -> Result<UserTemplate, &'static str> {
    if family_of(template.source) != family_of(template.destination) {
        return Err("a template's outer addresses must be of one family");
    }
    Ok(UserTemplate {
        id: Id {
            daddr: Address::from_ip(&template.destination),
            spi: spi_to_wire(template.spi),
            proto: template.protocol.number(),
        },
        family: family_of(template.source),
        saddr: Address::from_ip(&template.source),
        reqid: template.reqid.0,
        mode: template.mode.number(),
        share: template.share,
        optional: u8::from(template.optional),
        aalgos: template.algorithms.integrity,
        ealgos: template.algorithms.encryption,
        calgos: template.algorithms.compression,
    })
}

/// The argument of `setsockopt(IP_XFRM_POLICY)`: the structure with the templates behind it.
pub(crate) fn socket_policy(
    direction: PolicyDirection,
    selector: Selector,
    templates: &[Template],
) -> Result<Vec<u8>, &'static str> {
    let info = info_to_wire(&Policy::allow(direction, selector, 0));
    let mut bytes = vec![0; XFRM_USER_POLICY_INFO_LEN];
    info.emit(&mut bytes);
    for template in templates_to_wire(templates)? {
        let mut structure = [0; XFRM_USER_TEMPLATE_LEN];
        template.emit(&mut structure);
        bytes.extend_from_slice(&structure);
    }
    Ok(bytes)
}

fn templates_from_wire(payload: &[u8]) -> Result<Vec<Template>, DecodeError> {
    const WHAT: &str = "XFRMA_TMPL";
    let structures = payload.chunks_exact(XFRM_USER_TEMPLATE_LEN);
    if !structures.remainder().is_empty() {
        let needed = payload.len().next_multiple_of(XFRM_USER_TEMPLATE_LEN);
        return Err(DecodeError::short(WHAT, needed, payload.len()));
    }
    structures
        .map(|structure| {
            let wire = parsed(WHAT, UserTemplate::parse(structure))?;
            Ok(Template {
                source: ip_address("xfrm_user_tmpl.family", &wire.saddr, wire.family)?,
                destination: ip_address("xfrm_user_tmpl.family", &wire.id.daddr, wire.family)?,
                spi: Spi::new(wire.id.spi),
                reqid: Reqid(wire.reqid),
                mode: Mode::from_number(wire.mode),
                protocol: Protocol::from_number(wire.id.proto),
                optional: wire.optional != 0,
                share: wire.share,
                algorithms: AlgorithmMasks {
                    integrity: wire.aalgos,
                    encryption: wire.ealgos,
                    compression: wire.calgos,
                },
            })
        })
        .collect()
}

/// Reads the body of XFRM_MSG_NEWPOLICY or XFRM_MSG_UPDPOLICY.
pub(crate) fn entry(body: &[u8]) -> Result<PolicyEntry, DecodeError> {
    let (info, attributes) = split("xfrm_userpolicy_info", body, XFRM_USER_POLICY_INFO_LEN)?;
    entry_from_parts(info, attributes)
}

/// Reads an `xfrm_userpolicy_info` and attributes that stand somewhere else.
pub(crate) fn entry_from_parts(info: &[u8], attributes: &[u8]) -> Result<PolicyEntry, DecodeError> {
    let info = parsed("xfrm_userpolicy_info", UserPolicyInfo::parse(info))?;
    let mut policy = Policy::allow(
        direction_from_wire(info.direction)?,
        selector_from_wire(&info.selector)?,
        info.priority,
    );
    policy.action = match info.action {
        XFRM_POLICY_ALLOW => PolicyAction::Allow,
        XFRM_POLICY_BLOCK => PolicyAction::Block,
        other => return Err(DecodeError::value("xfrm_userpolicy_info.action", other)),
    };
    policy.index = info.index;
    policy.limits = limits_from_wire(&info.lifetime_cfg);
    policy.flags = PolicyFlags::from_bits_retain(info.flags);
    policy.share = info.share;
    let mut last_used = None;
    policy.other = attribute::read("policy attributes", attributes, |kind, payload| {
        match kind {
            XFRMA_TMPL => policy.templates = templates_from_wire(payload)?,
            XFRMA_MARK => policy.mark = Some(attribute::mark(payload)?),
            XFRMA_IF_ID => policy.if_id = NonZeroU32::new(u32_from("XFRMA_IF_ID", payload)?),
            XFRMA_POLICY_TYPE => policy.sub_policy = is_sub_policy(payload)?,
            XFRMA_OFFLOAD_DEV => policy.offload = Some(attribute::offload(payload)?),
            XFRMA_SEC_CTX => policy.security_context = Some(attribute::security_context(payload)?),
            XFRMA_LASTUSED => last_used = Some(u64_from("XFRMA_LASTUSED", payload)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(PolicyEntry {
        policy,
        usage: usage_from_wire(&info.lifetime_cur),
        last_used,
    })
}

fn is_sub_policy(payload: &[u8]) -> Result<bool, DecodeError> {
    let [number, ..]: [u8; POLICY_TYPE_LENGTH] = array("XFRMA_POLICY_TYPE", payload)?;
    Ok(number == XFRM_POLICY_TYPE_SUB)
}

fn direction_from_wire(number: u8) -> Result<PolicyDirection, DecodeError> {
    PolicyDirection::from_number(number).ok_or(DecodeError::value("policy direction", number))
}

/// Writes the body of XFRM_MSG_DELPOLICY or XFRM_MSG_GETPOLICY.
pub(crate) fn put_id(writer: &mut Writer, id: &PolicyId) {
    let mut wire = UserPolicyId {
        direction: id.direction.number(),
        ..UserPolicyId::default()
    };
    match id.key {
        PolicyKey::Selector(selector) => wire.selector = selector_to_wire(&selector),
        PolicyKey::Index(index) => wire.index = index.get(),
    }
    writer.structure(&wire);
    put_scope(writer, id.mark, id.if_id, id.sub_policy);
}

/// Takes an `xfrm_userpolicy_id` from the front of a body; its attributes follow.
pub(crate) fn split_id(body: &[u8]) -> Result<(PolicyId, &[u8]), DecodeError> {
    const WHAT: &str = "xfrm_userpolicy_id";
    let (id, attributes) = split(WHAT, body, XFRM_USER_POLICY_ID_LEN)?;
    let wire = parsed(WHAT, UserPolicyId::parse(id))?;
    let key = match NonZeroU32::new(wire.index) {
        Some(index) => PolicyKey::Index(index),
        None => PolicyKey::Selector(selector_from_wire(&wire.selector)?),
    };
    let direction = direction_from_wire(wire.direction)?;
    let mut id = PolicyId {
        direction,
        key,
        mark: None,
        if_id: None,
        sub_policy: false,
    };
    attribute::read("policy attributes", attributes, |kind, payload| {
        match kind {
            XFRMA_MARK => id.mark = Some(attribute::mark(payload)?),
            XFRMA_IF_ID => id.if_id = NonZeroU32::new(u32_from("XFRMA_IF_ID", payload)?),
            XFRMA_POLICY_TYPE => id.sub_policy = is_sub_policy(payload)?,
            _ => {}
        }
        Ok(true)
    })?;
    Ok((id, attributes))
}
