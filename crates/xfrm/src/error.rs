//! What can go wrong between a caller and the kernel, and who must act on it.

use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::{EventGroup, PolicyDirection, PolicyId, Protocol, SaId, Selector};

/// The result of talking to the kernel.
pub type Result<T, E = XfrmError> = std::result::Result<T, E>;

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Opening a netlink socket.
    Open,
    /// Joining a multicast group.
    Join(EventGroup),
    /// Leaving a multicast group.
    Leave(EventGroup),
    /// Waiting for an event.
    ReceiveEvent,
    /// XFRM_MSG_NEWSA.
    AddSa(Protocol, Option<SaId>),
    /// XFRM_MSG_UPDSA.
    UpdateSa(Protocol, Option<SaId>),
    /// XFRM_MSG_DELSA.
    DeleteSa(SaId),
    /// XFRM_MSG_GETSA.
    GetSa(SaId),
    /// XFRM_MSG_GETSA, all of them.
    ListSas,
    /// XFRM_MSG_ALLOCSPI.
    AllocateSpi,
    /// XFRM_MSG_NEWPOLICY.
    AddPolicy(PolicyDirection, Selector),
    /// XFRM_MSG_UPDPOLICY.
    UpdatePolicy(PolicyDirection, Selector),
    /// XFRM_MSG_DELPOLICY.
    DeletePolicy(PolicyId),
    /// XFRM_MSG_GETPOLICY.
    GetPolicy(PolicyId),
    /// XFRM_MSG_GETPOLICY, all of them.
    ListPolicies,
    /// XFRM_MSG_GETAE.
    GetEventState(SaId),
    /// XFRM_MSG_NEWAE.
    SetEventThresholds(SaId),
    /// XFRM_MSG_GETSADINFO.
    GetSadInfo,
    /// XFRM_MSG_GETSPDINFO.
    GetSpdInfo,
    /// XFRM_MSG_GETDEFAULT.
    GetDefaultActions,
    /// `setsockopt(IP_XFRM_POLICY)` or `setsockopt(IPV6_XFRM_POLICY)`.
    SetSocketPolicy,
    /// Reading `/proc/net/xfrm_stat`.
    ReadCounters,
}

impl Operation {
    fn is_about_sas(self) -> bool {
        matches!(
            self,
            Self::AddSa(..)
                | Self::UpdateSa(..)
                | Self::DeleteSa(_)
                | Self::GetSa(_)
                | Self::GetEventState(_)
                | Self::SetEventThresholds(_)
        )
    }

    fn is_a_list(self) -> bool {
        matches!(self, Self::ListSas | Self::ListPolicies)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open an XFRM netlink socket"),
            Self::Join(group) => write!(f, "join the event group {group}"),
            Self::Leave(group) => write!(f, "leave the event group {group}"),
            Self::ReceiveEvent => f.write_str("receive an XFRM event"),
            Self::AddSa(_, Some(id)) => write!(f, "add SA {id}"),
            Self::AddSa(protocol, None) => write!(f, "add an {protocol} SA"),
            Self::UpdateSa(_, Some(id)) => write!(f, "update SA {id}"),
            Self::UpdateSa(protocol, None) => write!(f, "update an {protocol} SA"),
            Self::DeleteSa(id) => write!(f, "delete SA {id}"),
            Self::GetSa(id) => write!(f, "get SA {id}"),
            Self::ListSas => f.write_str("list SAs"),
            Self::AllocateSpi => f.write_str("allocate an SPI"),
            Self::AddPolicy(direction, selector) => write!(f, "add policy {direction} {selector}"),
            Self::UpdatePolicy(direction, selector) => {
                write!(f, "update policy {direction} {selector}")
            }
            Self::DeletePolicy(id) => write!(f, "delete policy {id}"),
            Self::GetPolicy(id) => write!(f, "get policy {id}"),
            Self::ListPolicies => f.write_str("list policies"),
            Self::GetEventState(id) => write!(f, "get the event thresholds of SA {id}"),
            Self::SetEventThresholds(id) => write!(f, "set the event thresholds of SA {id}"),
            Self::GetSadInfo => f.write_str("get the size of the SAD"),
            Self::GetSpdInfo => f.write_str("get the size of the SPD"),
            Self::GetDefaultActions => f.write_str("get what happens without a policy"),
            Self::SetSocketPolicy => f.write_str("set a socket's own policy"),
            Self::ReadCounters => f.write_str("read the XFRM counters"),
        }
    }
}

/// An operation that failed.
///
/// `Display` says what was tried, what the kernel said, and where it is known who must act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XfrmError {
    operation: Operation,
    cause: Cause,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The kernel refused it.
    Refused {
        /// The error number, positive.
        errno: i32,
        /// The kernel's own words (extended acknowledgement), where it gave any.
        message: Option<String>,
    },
    /// The netlink socket failed. Whether the kernel did what was asked is not known.
    Socket {
        /// The error number, positive.
        errno: i32,
    },
    /// The kernel's answer did not come. Whether it did what was asked is not known.
    NoAnswer,
    /// The kernel's answer makes no sense.
    Malformed(DecodeError),
    /// What was asked for can't be said to the kernel.
    Invalid(&'static str),
    /// An earlier message of the batch broke the socket: this one was never sent.
    NotSent,
}

impl Cause {
    /// Why a netlink socket failed: a time-out is an answer that did not come.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::NoAnswer,
            _ => Self::Socket {
                errno: error.raw_os_error().unwrap_or(libc::EIO),
            },
        }
    }
}

impl XfrmError {
    pub(crate) fn new(operation: Operation, cause: Cause) -> Self {
        Self { operation, cause }
    }

    /// A system call other than an exchange with the kernel failed.
    pub(crate) fn refused(operation: Operation, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let message = None;
        Self {
            operation,
            cause: Cause::Refused { errno, message },
        }
    }

    /// The netlink socket failed.
    pub(crate) fn socket(operation: Operation, error: &io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Cause::NoAnswer,
            _ => Cause::Socket {
                errno: error.raw_os_error().unwrap_or(libc::EIO),
            },
        };
        Self { operation, cause }
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Why it failed.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// The error number, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self.cause {
            Cause::Refused { errno, .. } | Cause::Socket { errno } => Some(errno),
            Cause::NoAnswer | Cause::Malformed(_) | Cause::Invalid(_) | Cause::NotSent => None,
        }
    }

    /// The kernel's own words, where it gave any (Linux 6.2 and later do for most refusals).
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match &self.cause {
            Cause::Refused { message, .. } => message.as_deref(),
            _ => None,
        }
    }

    /// Something with that identity is there already (EEXIST).
    ///
    /// For an SA: another one has this destination, protocol and SPI; it may be a larval SA, which
    /// an ACQUIRE of a pinned policy leaves for 30 s. For a policy: same selector, mark, interface
    /// and direction.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// There is nothing with that identity (ESRCH for SAs, ENOENT for policies), or no SPI is left
    /// in the range asked for (ENOENT).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ESRCH | libc::ENOENT))
    }

    /// The caller lacks CAP_NET_ADMIN.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// The kernel lacks XFRM, or the protocol or algorithm asked for.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ENOSYS | libc::EOPNOTSUPP)
        )
    }

    fn advice(&self) -> Option<&'static str> {
        let about_sas = self.operation.is_about_sas();
        match self.errno()? {
            libc::EPERM | libc::EACCES => Some(
                "CAP_NET_ADMIN is needed in the user namespace that owns this network namespace",
            ),
            libc::EPROTONOSUPPORT if self.operation == Operation::Open => {
                Some("the kernel has no XFRM over netlink: load xfrm_user (CONFIG_XFRM_USER)")
            }
            libc::EPROTONOSUPPORT => Some(
                "the kernel has no ESP: load esp4 and esp6 (CONFIG_INET_ESP, CONFIG_INET6_ESP)",
            ),
            libc::ENOSYS => Some("the kernel does not have this algorithm"),
            libc::EEXIST if about_sas => {
                Some("there is an SA with this destination, protocol and SPI already")
            }
            libc::EEXIST => {
                Some("there is a policy with this selector, mark and direction already")
            }
            libc::ESRCH => Some("there is no such SA"),
            libc::EBUSY if self.operation.is_a_list() => {
                Some("another list is still being read from this socket: try again")
            }
            libc::ENOBUFS => Some(
                "the answers did not fit into the socket's receive buffer: raise \
                 net.core.rmem_max, or ask for less at once",
            ),
            libc::ENOENT if self.operation == Operation::ReadCounters => {
                Some("the kernel was built without CONFIG_XFRM_STATISTICS")
            }
            libc::ENOENT if self.operation == Operation::AllocateSpi => {
                Some("no SPI of the range is free")
            }
            libc::ENOENT => Some("there is no such policy"),
            _ => None,
        }
    }
}

impl fmt::Display for XfrmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.operation, self.cause)?;
        match self.advice() {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                errno,
                message: Some(message),
            } => {
                write!(
                    f,
                    "the kernel says {message:?}, {}",
                    Errno::from_raw(*errno)
                )
            }
            Self::Refused {
                errno,
                message: None,
            } => Errno::from_raw(*errno).fmt(f),
            Self::Socket { errno } => {
                write!(f, "the netlink socket failed: {}", Errno::from_raw(*errno))
            }
            Self::NoAnswer => f.write_str("the kernel did not answer"),
            Self::Malformed(error) => write!(f, "the kernel's answer is malformed: {error}"),
            Self::Invalid(reason) => f.write_str(reason),
            Self::NotSent => f.write_str("not sent, because an earlier request failed"),
        }
    }
}

impl std::error::Error for XfrmError {}

/// A message that is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What was being read: the kernel's name of the structure or attribute.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It is shorter than it must be.
    Short {
        /// How many bytes it must have at least.
        needed: usize,
        /// How many it has.
        present: usize,
    },
    /// A value in it is impossible.
    Value(u64),
}

impl DecodeError {
    pub(crate) fn short(what: &'static str, needed: usize, present: usize) -> Self {
        Self {
            what,
            problem: Problem::Short { needed, present },
        }
    }

    pub(crate) fn value(what: &'static str, value: impl Into<u64>) -> Self {
        Self {
            what,
            problem: Problem::Value(value.into()),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem {
            Problem::Short { needed, present } => {
                write!(f, "{} has {present} bytes, {needed} are needed", self.what)
            }
            Problem::Value(value) => write!(f, "{} can't be {value}", self.what),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spi;

    fn refused(operation: Operation, errno: i32, message: Option<&str>) -> String {
        let cause = Cause::Refused {
            errno,
            message: message.map(str::to_owned),
        };
        XfrmError::new(operation, cause).to_string()
    }

    #[test]
    fn an_error_says_what_was_tried_what_the_kernel_said_and_who_must_act() {
        let spi = Spi::new(0x100).expect("not zero");
        let id = SaId::esp([192, 0, 2, 1].into(), spi);
        let add = Operation::AddSa(Protocol::Esp, Some(id));
        assert_eq!(
            refused(add, libc::EPROTONOSUPPORT, Some("Requested type not found")),
            "cannot add SA esp 0x00000100 to 192.0.2.1: the kernel says \"Requested type not \
             found\", EPROTONOSUPPORT: Protocol not supported (the kernel has no ESP: load esp4 and \
             esp6 (CONFIG_INET_ESP, CONFIG_INET6_ESP))"
        );
        let policy = Operation::AddPolicy(PolicyDirection::Out, Selector::ANY_V4);
        assert_eq!(
            refused(policy, libc::EEXIST, None),
            "cannot add policy out 0.0.0.0/0 -> 0.0.0.0/0: EEXIST: File exists (there is a policy \
             with this selector, mark and direction already)"
        );
        assert_eq!(
            refused(Operation::Join(EventGroup::Acquire), libc::EPERM, None),
            "cannot join the event group acquire: EPERM: Operation not permitted (CAP_NET_ADMIN is \
             needed in the user namespace that owns this network namespace)"
        );
        assert_eq!(
            refused(Operation::Open, libc::EPROTONOSUPPORT, None),
            "cannot open an XFRM netlink socket: EPROTONOSUPPORT: Protocol not supported (the \
             kernel has no XFRM over netlink: load xfrm_user (CONFIG_XFRM_USER))"
        );
    }

    #[test]
    fn a_list_in_the_way_of_another_and_a_full_buffer_are_told_as_such() {
        assert_eq!(
            refused(Operation::ListSas, libc::EBUSY, None),
            "cannot list SAs: EBUSY: Device or resource busy (another list is still being read \
             from this socket: try again)"
        );
        let full = io::Error::from_raw_os_error(libc::ENOBUFS);
        assert_eq!(
            XfrmError::socket(Operation::ListPolicies, &full).to_string(),
            "cannot list policies: the netlink socket failed: ENOBUFS: No buffer space available \
             (the answers did not fit into the socket's receive buffer: raise net.core.rmem_max, \
             or ask for less at once)"
        );
    }

    #[test]
    fn a_time_out_of_the_socket_is_an_answer_that_did_not_come() {
        let timeout = io::Error::from_raw_os_error(libc::EAGAIN);
        let error = XfrmError::socket(Operation::ListSas, &timeout);
        assert_eq!(error.cause(), &Cause::NoAnswer);
        assert_eq!(
            error.to_string(),
            "cannot list SAs: the kernel did not answer"
        );
    }
}
