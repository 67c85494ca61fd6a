//! Where a peer's programs are: installed on this machine, or unpacked by `scripts/lab.d/peers`
//! into a root of their own, because packages of two peers or of two releases conflict.

use crate::net::Host;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a host sees a root that is not the machine's, in its own `/run`.
const MOUNTED: &str = "/run/root";

/// Where programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// On this machine.
    Machine,
    /// In this folder.
    Folder(PathBuf),
}

impl Root {
    /// The root of a peer that `scripts/lab.d/peers` unpacks, if it has.
    pub fn unpacked(name: &str) -> Option<Self> {
        let folder = Path::new(&std::env::var_os("EPOCHGATE_PEERS")?).join(name);
        folder.is_dir().then_some(Self::Folder(folder))
    }

    /// The same; a test that needs it says what to do.
    #[track_caller]
    pub fn of(name: &str) -> Self {
        Self::unpacked(name).unwrap_or_else(|| panic!("run scripts/lab.d/peers build {name}"))
    }

    /// Gives it to a host, with the host's own `/run` and this machine's devices and `/tmp` in
    /// it. Nothing happens if the host has it.
    pub(crate) fn mount_on(&self, host: &Host) {
        let Self::Folder(folder) = self else {
            return;
        };
        let bind = |from: &Path, to: &str, recursive: MsFlags| {
            let to = Path::new(MOUNTED).join(to);
            mount(
                Some(from),
                &to,
                None::<&str>,
                MsFlags::MS_BIND | recursive,
                None::<&str>,
            )
            .unwrap_or_else(|error| panic!("{} on {}: {error}", from.display(), to.display()));
        };
        host.within(|| {
            if Path::new(MOUNTED).exists() {
                return;
            }
            fs::create_dir(MOUNTED).expect("the host's own /run");
            bind(folder, "", MsFlags::empty());
            bind(Path::new("/run"), "run", MsFlags::empty());
            bind(Path::new("/tmp"), "tmp", MsFlags::empty());
            for of_the_kernel in ["/proc", "/sys", "/dev"] {
                bind(
                    Path::new(of_the_kernel),
                    &of_the_kernel[1..],
                    MsFlags::MS_REC,
                );
            }
        });
    }

    /// A command that runs a program of it, once it is mounted on the host that runs it.
    pub fn command(&self, program: &str) -> Command {
        match self {
            Self::Machine => Command::new(program),
            Self::Folder(_) => {
                let mut command = Command::new("chroot");
                command.args([MOUNTED, program]);
                command
            }
        }
    }
}
