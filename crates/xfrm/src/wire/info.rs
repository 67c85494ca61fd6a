//! XFRM_MSG_NEWSADINFO, XFRM_MSG_NEWSPDINFO and XFRM_MSG_GETDEFAULT.

use netlink_packet_xfrm::constants::{
    XFRM_USERPOLICY_ACCEPT, XFRM_USERPOLICY_BLOCK, XFRMA_SAD_CNT, XFRMA_SAD_HINFO, XFRMA_SPD_HINFO,
    XFRMA_SPD_INFO, XFRMA_SPD_IPV4_HTHRESH, XFRMA_SPD_IPV6_HTHRESH,
};

use super::attribute::{read, words};
use super::{array, split, u32_from};
use crate::{DecodeError, DefaultActions, HashThreshold, PolicyAction, SadInfo, SpdInfo};

/// Both bodies start with 32 bits of flags.
const FLAGS_LENGTH: usize = 4;

pub(crate) fn sad(body: &[u8]) -> Result<SadInfo, DecodeError> {
    let (_, attributes) = split("XFRM_MSG_NEWSADINFO", body, FLAGS_LENGTH)?;
    let mut info = SadInfo::default();
    read("SAD attributes", attributes, |kind, payload| {
        match kind {
            XFRMA_SAD_CNT => info.sas = u32_from("XFRMA_SAD_CNT", payload)?,
            XFRMA_SAD_HINFO => {
                [info.hash_buckets, info.hash_buckets_max] = words("XFRMA_SAD_HINFO", payload)?;
            }
            _ => {}
        }
        Ok(true)
    })?;
    Ok(info)
}

pub(crate) fn spd(body: &[u8]) -> Result<SpdInfo, DecodeError> {
    let (_, attributes) = split("XFRM_MSG_NEWSPDINFO", body, FLAGS_LENGTH)?;
    let mut info = SpdInfo::default();
    read("SPD attributes", attributes, |kind, payload| {
        match kind {
            XFRMA_SPD_INFO => {
                [
                    info.inbound,
                    info.outbound,
                    info.forward,
                    info.socket_inbound,
                    info.socket_outbound,
                    info.socket_forward,
                ] = words("XFRMA_SPD_INFO", payload)?;
            }
            XFRMA_SPD_HINFO => {
                [info.hash_buckets, info.hash_buckets_max] = words("XFRMA_SPD_HINFO", payload)?;
            }
            XFRMA_SPD_IPV4_HTHRESH => info.hash_threshold_v4 = Some(threshold(payload)?),
            XFRMA_SPD_IPV6_HTHRESH => info.hash_threshold_v6 = Some(threshold(payload)?),
            _ => {}
        }
        Ok(true)
    })?;
    Ok(info)
}

fn threshold(payload: &[u8]) -> Result<HashThreshold, DecodeError> {
    let [local_bits, remote_bits] = array("xfrmu_spdhthresh", payload)?;
    Ok(HashThreshold {
        local_bits,
        remote_bits,
    })
}

pub(crate) fn default_actions(body: &[u8]) -> Result<DefaultActions, DecodeError> {
    const WHAT: &str = "xfrm_userpolicy_default";
    let action = |number: u8| match number {
        XFRM_USERPOLICY_ACCEPT => Ok(PolicyAction::Allow),
        XFRM_USERPOLICY_BLOCK => Ok(PolicyAction::Block),
        other => Err(DecodeError::value(WHAT, other)),
    };
    let [inbound, forward, outbound] = array(WHAT, body)?;
    Ok(DefaultActions {
        inbound: action(inbound)?,
        forward: action(forward)?,
        outbound: action(outbound)?,
    })
}
