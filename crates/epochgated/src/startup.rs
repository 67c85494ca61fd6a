//! What must be true before the daemon starts, and a clear sentence for each thing that is not.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use epochgate_host::port;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::sysctl::SettingError;
use crate::udp::OpenError;

/// Name of the lock in the state directory.
const LOCK: &str = "epochgated.lock";
/// Everybody may look into the state directory; nothing in it is secret.
const STATE_MODE: u32 = 0o755;

/// Why the daemon can't start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Capabilities are missing.
    #[error(
        "epochgated lacks {0}: start it as root or by its systemd unit, which grants what it needs"
    )]
    Capabilities(String),
    /// The kernel can't do ESP.
    #[error(
        "the kernel cannot do what epochgate needs (ESP in tunnel mode with AES-GCM): {0}; load \
         xfrm_user, esp4, esp6 and gcm, or boot a kernel that has them"
    )]
    Kernel(epochgate_xfrm::XfrmError),
    /// No access to XFRM at all.
    #[error(transparent)]
    Xfrm(epochgate_xfrm::XfrmError),
    /// IKE's port belongs to somebody else.
    #[error(
        "UDP port {port} is taken by {holder}: only one IKE daemon can run in a network namespace; \
         stop the other one"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// Name and number of the process, if that is known.
        holder: String,
    },
    /// A socket could not be opened for another reason.
    #[error(transparent)]
    Udp(OpenError),
    /// Raw ICMP sockets are refused.
    #[error("cannot open a raw ICMP socket for control pings: {0}")]
    Ping(io::Error),
    /// Another instance runs.
    #[error(
        "another epochgated runs already with the state directory {directory} ({holder}): stop it, \
         or give this one another --state",
        directory = directory.display()
    )]
    Running {
        /// The state directory.
        directory: PathBuf,
        /// `pid N`, if it wrote that.
        holder: String,
    },
    /// The state directory is no good.
    #[error("cannot use the state directory {directory}: {error}", directory = directory.display())]
    State {
        /// The directory.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The control socket is no good.
    #[error("cannot listen at {socket}: {error}", socket = socket.display())]
    Control {
        /// The socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The kernel's setting could not be changed.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// What an earlier run left in the kernel's SAD or SPD does not go.
    #[error("cannot remove what an earlier run left in the kernel: {0}")]
    Leftovers(epochgate_controller::io::XfrmError),
    /// Routes or addresses can't be read.
    #[error("{0}")]
    Routing(String),
    /// Something that always works did not.
    #[error("{action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

/// Checks the capabilities that the daemon needs.
///
/// # Errors
/// [`StartError::Capabilities`] names all that are missing.
pub fn check_capabilities() -> Result<(), StartError> {
    let missing: Vec<String> = [
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_RAW,
        Capability::CAP_NET_BIND_SERVICE,
    ]
    .into_iter()
    .filter(|capability| {
        // A process that can't read its own capabilities learns of them when it needs them.
        matches!(
            caps::has_cap(None, CapSet::Effective, *capability),
            Ok(false)
        )
    })
    .map(|capability| capability.to_string())
    .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(StartError::Capabilities(missing.join(", ")))
    }
}

/// The claim on a state directory; it ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Makes the state directory and claims it.
    ///
    /// # Errors
    /// [`StartError::Running`] if another instance has it, else [`StartError::State`].
    pub fn take(directory: &Path) -> Result<Self, StartError> {
        let unusable = |error| StartError::State {
            directory: directory.to_owned(),
            error,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(STATE_MODE)
            .create(directory)
            .map_err(unusable)?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(LOCK))
            .map_err(unusable)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()))
                    .map_err(unusable)?;
                Ok(Self { _file: file })
            }
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => Err(StartError::Running {
                directory: directory.to_owned(),
                holder: holder(file),
            }),
            Err((_, error)) => Err(unusable(error.into())),
        }
    }
}

fn holder(file: File) -> String {
    /// Digits of the greatest process number, and a line end.
    const PID_OCTETS: u64 = 16;
    let mut text = String::new();
    match file.take(PID_OCTETS).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("pid {}", text.trim()),
        _ => "its pid is unknown".to_owned(),
    }
}

/// Says who has the port, where that is what is wrong.
#[must_use]
pub fn explain(error: OpenError) -> StartError {
    if error.source.kind() == io::ErrorKind::AddrInUse {
        StartError::PortTaken {
            port: error.port,
            holder: port::holder(error.port)
                .unwrap_or_else(|| "a process that /proc does not show".to_owned()),
        }
    } else {
        StartError::Udp(error)
    }
}

/// Tells a kernel that can't from a process that may not.
#[must_use]
pub fn explain_kernel(error: epochgate_xfrm::XfrmError) -> StartError {
    if error.is_permission() {
        StartError::Xfrm(error)
    } else {
        StartError::Kernel(error)
    }
}

#[cfg(test)]
mod tests {
    use epochgate_controller::io::{XfrmOp, XfrmReply};

    use super::*;

    #[test]
    fn a_second_instance_is_told_of_the_first() {
        let directory = tempfile::tempdir().expect("directory");
        let state = directory.path().join("a/b");
        let first = Lock::take(&state).expect("free");
        let error = Lock::take(&state).expect_err("taken");
        let text = error.to_string();
        assert!(
            text.contains(&format!("pid {}", std::process::id())),
            "{text}"
        );
        drop(first);
        Lock::take(&state).expect("free again");
    }

    /// Says what a kernel without ESP lacks, where this is one; where it is not, sees that asking
    /// leaves nothing behind. A network namespace of its own keeps either from the host.
    #[test]
    fn a_kernel_is_asked_for_esp_and_told_what_it_lacks() {
        let asked = std::thread::spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let probe = async {
                    let mut kernel = crate::kernel::Kernel::open()?;
                    kernel.probe_esp().await?;
                    Ok(kernel)
                };
                match probe.await.map_err(explain_kernel) {
                    Ok(mut kernel) => {
                        let left = kernel.perform(XfrmOp::ReadOurs).await;
                        let (policies, sas) = (Vec::new(), Vec::new());
                        assert_eq!(left, Ok(XfrmReply::Ours { policies, sas }));
                    }
                    Err(StartError::Kernel(error)) => {
                        let text = StartError::Kernel(error).to_string();
                        assert!(text.contains("ESP in tunnel mode with AES-GCM"), "{text}");
                        assert!(text.contains("load xfrm_user, esp4, esp6"), "{text}");
                        assert!(!text.contains('\n'), "{text}");
                    }
                    // Not this process's right to ask.
                    Err(StartError::Xfrm(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            });
        });
        asked.join().expect("the kernel's answer");
    }

    #[test]
    fn a_taken_port_is_explained_with_the_process_that_has_it() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let port = socket.local_addr().expect("address").port();
        let error = explain(OpenError {
            port,
            family: "IPv4",
            source: io::ErrorKind::AddrInUse.into(),
        });
        let text = error.to_string();
        assert!(
            text.contains(&format!("pid {}", std::process::id())),
            "{text}"
        );
    }
}
