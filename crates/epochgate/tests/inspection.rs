//! `epochgate xfrm` on a kernel that refuses: a seccomp filter plays it, system call by system call.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Command, Output};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

type Outcome = Result<(), Box<dyn Error>>;

/// `AF_NETLINK`.
const NETLINK: u64 = nix::libc::AF_NETLINK as u64;
/// `NETLINK_XFRM`.
const NETLINK_XFRM: u64 = nix::libc::NETLINK_XFRM as u64;

/// Runs the command where a system call fails with this error number; where conditions are given,
/// only with such arguments.
fn refused(
    arguments: &[&str],
    call: i64,
    errno: i32,
    conditions: Vec<(u8, u64)>,
) -> Result<Output, Box<dyn Error>> {
    let equal = |(argument, value): (u8, u64)| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let rules = match conditions.is_empty() {
        true => Vec::new(),
        false => {
            let conditions: Result<Vec<_>, _> = conditions.into_iter().map(equal).collect();
            vec![SeccompRule::new(conditions?)?]
        }
    };
    let filter: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(call, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(u32::try_from(errno)?),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochgate"));
    command.args(arguments);
    // The filter is of one thread and its children.
    let run = std::thread::spawn(move || -> Result<Output, String> {
        apply_filter(&filter).map_err(|error| error.to_string())?;
        command.output().map_err(|error| error.to_string())
    });
    Ok(run.join().map_err(|_| "the thread")??)
}

fn check(output: &Output, code: i32, parts: &[&str]) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    for part in parts {
        assert!(err.contains(part), "{part} is missing in: {err}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

#[test]
fn a_kernel_without_xfrm_over_netlink_is_named() -> Outcome {
    let no_xfrm = vec![(0, NETLINK), (2, NETLINK_XFRM)];
    let no_protocol = nix::libc::EPROTONOSUPPORT;
    for command in ["state", "policy", "monitor"] {
        let arguments = ["xfrm", command];
        let output = refused(
            &arguments,
            nix::libc::SYS_socket,
            no_protocol,
            no_xfrm.clone(),
        )?;
        check(
            &output,
            6,
            &[
                "this kernel has no IPsec over netlink",
                "modprobe xfrm_user",
            ],
        );
    }
    Ok(())
}

#[test]
fn a_kernel_that_is_busy_is_said_to_be() -> Outcome {
    for command in ["state", "policy"] {
        let arguments = ["xfrm", command];
        let output = refused(
            &arguments,
            nix::libc::SYS_sendto,
            nix::libc::EBUSY,
            Vec::new(),
        )?;
        check(&output, 1, &["cannot", "busy"]);
    }
    Ok(())
}

#[test]
fn answers_that_do_not_fit_into_the_buffer_are_told_with_a_remedy() -> Outcome {
    for command in ["state", "policy"] {
        let arguments = ["xfrm", command];
        let output = refused(
            &arguments,
            nix::libc::SYS_recvfrom,
            nix::libc::ENOBUFS,
            Vec::new(),
        )?;
        check(&output, 1, &["cannot", "net.core.rmem_max"]);
    }
    Ok(())
}

#[test]
fn a_mistyped_filter_is_a_usage_error() -> Outcome {
    for arguments in [
        ["xfrm", "state", "--src", "10.0.0.0/33"],
        ["xfrm", "state", "--spi", "c0ffee"],
        ["xfrm", "policy", "--mark", "1/x"],
        ["xfrm", "policy", "--dir", "sideways"],
        ["xfrm", "stat", "--watch", "1ms"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_epochgate"))
            .args(arguments)
            .output()?;
        check(&output, 2, &["error: invalid value"]);
    }
    Ok(())
}
