//! Policies of single sockets: what one socket sends and receives is exempt from the SPD, or goes
//! through one SA of the caller's choice. The only `unsafe` code of this crate is here.
//!
//! The policy goes in as `setsockopt(IP_XFRM_POLICY)` or `setsockopt(IPV6_XFRM_POLICY)`: an
//! `xfrm_userpolicy_info` (168 bytes) with any number of `xfrm_user_tmpl` (64 bytes) behind it.
//! A socket has one policy a direction, for one address family: an IPv6 socket that also speaks
//! IPv4 is only half exempt, so use one socket per family. CAP_NET_ADMIN is needed.
#![allow(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use crate::wire::policy;
use crate::{Cause, Operation, PolicyDirection, Result, Selector, Template, XfrmError};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl Family {
    fn everything(self) -> Selector {
        match self {
            Self::V4 => Selector::ANY_V4,
            Self::V6 => Selector::ANY_V6,
        }
    }

    fn option(self) -> (libc::c_int, libc::c_int) {
        match self {
            Self::V4 => (libc::IPPROTO_IP, IP_XFRM_POLICY),
            Self::V6 => (libc::IPPROTO_IPV6, IPV6_XFRM_POLICY),
        }
    }
}

/// `linux/in.h`.
const IP_XFRM_POLICY: libc::c_int = 17;
/// `linux/in6.h`.
const IPV6_XFRM_POLICY: libc::c_int = 35;

/// Exempts a socket from the SPD in both directions: what it sends leaves in clear, and what comes
/// in clear reaches it. An IKE daemon's own sockets need it, or a policy that covers the peers
/// themselves would hold the negotiation that is to end the hold.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; ENOPROTOOPT or EOPNOTSUPP if the socket is not of this family.
pub fn set_socket_bypass(socket: impl AsFd, family: Family) -> Result<()> {
    for direction in [PolicyDirection::In, PolicyDirection::Out] {
        set(&socket, family, direction, &[])?;
    }
    Ok(())
}

/// Sends what a socket sends through the SAs that fit `templates`, whatever the SPD says. Pinned to
/// reqid and SPI ([`Template::pinned_to`]) that is one SA, so that a control ping can go through an
/// SA that nothing else may use yet. What the socket receives is still up to the SPD.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; ENOPROTOOPT or EOPNOTSUPP if the socket is not of this family.
pub fn set_socket_policy(socket: impl AsFd, family: Family, templates: &[Template]) -> Result<()> {
    set(&socket, family, PolicyDirection::Out, templates)
}

/// Takes both policies of a socket away again.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN.
pub fn clear_socket_policy(socket: impl AsFd, family: Family) -> Result<()> {
    let (level, option) = family.option();
    // SAFETY: a null value of length 0 is what the kernel asks for to clear the policies
    // (xfrm_user_policy); it reads nothing. The descriptor is open: it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            std::ptr::null(),
            0,
        )
    };
    checked(result)
}

fn set(
    socket: &impl AsFd,
    family: Family,
    direction: PolicyDirection,
    templates: &[Template],
) -> Result<()> {
    let value = policy::socket_policy(direction, family.everything(), templates)
        .map_err(|reason| XfrmError::new(Operation::SetSocketPolicy, Cause::Invalid(reason)))?;
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| {
        XfrmError::new(
            Operation::SetSocketPolicy,
            Cause::Invalid("too many templates"),
        )
    })?;
    let (level, option) = family.option();
    // SAFETY: the kernel reads `length` bytes at the pointer, which is the length of `value`, and
    // keeps no pointer to it. The descriptor is open: it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            length,
        )
    };
    checked(result)
}

fn checked(result: libc::c_int) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    Err(XfrmError::refused(
        Operation::SetSocketPolicy,
        &io::Error::last_os_error(),
    ))
}
