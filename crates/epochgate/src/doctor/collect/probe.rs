//! Asks the kernel what it can do, by doing it: SAs, a policy and an interface are made in a network
//! namespace of their own, which goes with the process. The host's SAD and SPD are not touched.
//!
//! It runs in a process of its own (`epochgate doctor --probe`), because the way for users without
//! privileges, a user namespace, is closed to a process with threads, and because a kernel that
//! loads modules may take its time. Its report goes over a pipe as JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use epochgate_controller::REQIDS;
use epochgate_controller::config::CIPHERS;
use epochgate_controller::crypto::Cipher;
use epochgate_host::esp;
use epochgate_xfrm::{
    Encap, Policy, PolicyDirection, Protection, ReplayWindow, Reqid, Sa, Selector, Socket, Spi,
    Template, XfrmError,
};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::netlink::Rtnetlink;
use super::proc::read_text;
use crate::doctor::facts::{Answer, Probe, cipher_name};

/// Documentation addresses (RFC 5737, RFC 3849): nobody is there, and nothing is sent.
const V4: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
);
const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
);
/// Octets of the list of the kernel's algorithms that are read.
const CRYPTO_OCTETS_MAX: u64 = 1 << 20;

/// Asks everything. The calling process is then in another network namespace.
pub(crate) fn probe() -> Probe {
    let mut probe = Probe {
        refused: enter_namespace(),
        ..Probe::default()
    };
    if probe.refused.is_some() {
        return probe;
    }
    let mut asker = match Socket::open() {
        Ok(socket) => Asker {
            socket,
            next_spi: 0x1000,
        },
        Err(error) => {
            let answer = no(&error);
            for field in [
                &mut probe.esp_v4,
                &mut probe.esp_v6,
                &mut probe.encapsulation_v4,
                &mut probe.encapsulation_v6,
                &mut probe.extended_numbers,
                &mut probe.policy,
            ] {
                *field = answer.clone();
            }
            return probe;
        }
    };
    let encapsulated = |sa: &mut Sa| sa.encap = Some(Encap::udp(4500, 4500));
    probe.esp_v4 = asker.ask(V4, Cipher::AesGcm256, |_| {});
    probe.esp_v6 = asker.ask(V6, Cipher::AesGcm256, |_| {});
    // AES-GCM may be what is missing.
    if let Answer::No(_) | Answer::Failed(_) = probe.esp_v4 {
        probe.esp_v4 = asker.ask(V4, CIPHERS[3], |_| {});
    }
    if let Answer::No(_) | Answer::Failed(_) = probe.esp_v6 {
        probe.esp_v6 = asker.ask(V6, CIPHERS[3], |_| {});
    }
    probe.encapsulation_v4 = asker.ask(V4, Cipher::AesGcm256, encapsulated);
    probe.encapsulation_v6 = asker.ask(V6, Cipher::AesGcm256, encapsulated);
    probe.extended_numbers = asker.ask(V4, Cipher::AesGcm256, |sa| {
        sa.replay_window = ReplayWindow::extended(32);
    });
    for cipher in CIPHERS {
        let answer = asker.ask(V4, cipher, |_| {});
        if answer == Answer::Yes
            && let Some(driver) = driver_of(&drivers(), cipher)
        {
            probe.drivers.insert(cipher_name(cipher).to_owned(), driver);
        }
        probe.ciphers.insert(cipher_name(cipher).to_owned(), answer);
    }
    probe.policy = asker.ask_policy();
    probe.interface = match Rtnetlink::open().and_then(|mut links| links.add_xfrm_interface()) {
        Ok(()) => Answer::Yes,
        Err(error) => match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Answer::No(error.to_string()),
            _ => Answer::Failed(error.to_string()),
        },
    };
    probe
}

/// Leaves for a network namespace of its own; root does it directly, others by way of a user
/// namespace, where the machine allows that. `Some`: why not.
fn enter_namespace() -> Option<String> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => None,
        Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
            .err()
            .map(|error| error.desc().to_owned()),
        Err(error) => Some(error.desc().to_owned()),
    }
}

struct Asker {
    socket: Socket,
    next_spi: u32,
}

impl Asker {
    /// Adds an SA. It stays: the namespace goes.
    fn ask(
        &mut self,
        (source, destination): (IpAddr, IpAddr),
        cipher: Cipher,
        change: impl FnOnce(&mut Sa),
    ) -> Answer {
        self.next_spi += 1;
        let Some(spi) = Spi::new(self.next_spi) else {
            return Answer::NotAsked;
        };
        let mut sa = Sa::esp_tunnel(
            source,
            destination,
            spi,
            Reqid(*REQIDS.end()),
            self::key(cipher),
        );
        change(&mut sa);
        match self.socket.add_sa(&sa) {
            Ok(()) => Answer::Yes,
            Err(error) => no(&error),
        }
    }

    /// Adds a policy that holds.
    fn ask_policy(&mut self) -> Answer {
        let template = Template::esp_tunnel(V4.0, V4.1, Reqid(*REQIDS.end()));
        let policy = Policy::protect(PolicyDirection::Out, Selector::ANY_V4, 1, template);
        match self.socket.add_policy(&policy) {
            Ok(()) => Answer::Yes,
            Err(error) => no(&error),
        }
    }
}

/// Keys that protect nothing.
fn key(cipher: Cipher) -> Protection {
    esp::protection(cipher, &vec![0x5a; cipher.material_len()])
}

fn no(error: &XfrmError) -> Answer {
    if error.is_permission() {
        return Answer::Failed(error.to_string());
    }
    match error.errno() {
        Some(
            libc::EPROTONOSUPPORT
            | libc::ENOSYS
            | libc::EAFNOSUPPORT
            | libc::EOPNOTSUPP
            | libc::ENOENT
            | libc::EINVAL,
        ) => Answer::No(error.to_string()),
        _ => Answer::Failed(error.to_string()),
    }
}

/// The drivers that the kernel would take now, by the algorithm's name: the one of the highest
/// priority.
fn drivers() -> BTreeMap<String, String> {
    read_drivers(&read_text("/proc/crypto", CRYPTO_OCTETS_MAX).unwrap_or_default())
}

fn read_drivers(text: &str) -> BTreeMap<String, String> {
    let mut best: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let value = |key: &str| {
            paragraph.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                (name.trim() == key).then(|| value.trim().to_owned())
            })
        };
        let (Some(name), Some(driver)) = (value("name"), value("driver")) else {
            continue;
        };
        let priority = value("priority").and_then(|text| text.parse().ok());
        let priority = priority.unwrap_or(0);
        let known = best.get(&name).is_some_and(|(known, _)| *known >= priority);
        if !known {
            best.insert(name, (priority, driver));
        }
    }
    best.into_iter()
        .map(|(name, (_, driver))| (name, driver))
        .collect()
}

fn driver_of(drivers: &BTreeMap<String, String>, cipher: Cipher) -> Option<String> {
    let name = match esp::protection(cipher, &vec![0; cipher.material_len()]) {
        Protection::Aead(aead) => aead.name,
        Protection::Encryption { cipher, .. } => cipher.name,
        Protection::Larval | Protection::Integrity(_) | Protection::Compression(_) => return None,
    };
    drivers.get(&name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_of_the_highest_priority_is_the_one_that_is_used() {
        let text = "name         : cbc(aes)\ndriver       : cbc(aes-generic)\npriority     : 100\n\n\
                    name         : cbc(aes)\ndriver       : cbc-aes-aesni\npriority     : 400\n\n\
                    name         : ghash\n";
        let drivers = read_drivers(text);
        let cipher = CIPHERS[3];
        assert_eq!(
            driver_of(&drivers, cipher).as_deref(),
            Some("cbc-aes-aesni")
        );
        assert_eq!(driver_of(&drivers, Cipher::AesGcm256), None);
    }
}
