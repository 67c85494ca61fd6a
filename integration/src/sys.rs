//! The system calls that no safe crate offers: binding a packet socket to an interface, its
//! drop counter, TCP's own statistics, and TUN interfaces.

#![allow(unsafe_code, reason = "system calls, each with its argument")]

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// `tp_packets` and `tp_drops` since the last call (struct tpacket_stats, packet(7)).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PacketStatistics {
    pub(crate) packets: u32,
    pub(crate) drops: u32,
}

/// A packet socket that receives nothing until it is bound.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Packet, SockType::Raw, flags, None)?)
}

/// Binds a packet socket to the frames of one interface of the calling thread's network
/// namespace, in both directions.
pub(crate) fn bind_packet_socket(fd: &OwnedFd, interface: &str) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    // SAFETY: all bit patterns are valid for this plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: `address` is a sockaddr_ll, and its true size is given; bind only reads it.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Sets an option of a packet socket (packet(7)). `T` must be the C type that the option takes.
pub(crate) fn set_packet_option<T: Copy>(fd: &OwnedFd, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes, the size of what `value` points to.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Reads and resets a packet socket's counters (PACKET_STATISTICS, packet(7)).
pub(crate) fn packet_statistics(fd: impl AsFd) -> io::Result<PacketStatistics> {
    let mut statistics = PacketStatistics::default();
    option(
        fd,
        libc::SOL_PACKET,
        libc::PACKET_STATISTICS,
        &mut statistics,
    )?;
    Ok(statistics)
}

/// TCP's statistics of a connection (TCP_INFO, tcp(7)).
pub(crate) fn tcp_info(fd: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: all bit patterns are valid for this plain C struct of integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(info)
}

/// `T` must be a plain C struct of integers: the kernel may fill any part of it.
fn option<T: Copy>(fd: impl AsFd, level: i32, name: i32, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of what `value` points to,
    // and both of our `T`s hold integers only.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Makes a TUN interface in the calling thread's network namespace. Each read takes one IP packet
/// that was routed into it, each write is one that it receives. It goes when the file is closed.
pub(crate) fn tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: all bit patterns are valid for this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last octet stays 0.
    let places = request.ifr_name.len() - 1;
    if name.len() > places {
        return Err(Errno::ENAMETOOLONG.into());
    }
    for (place, octet) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = octet as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result)?;
    Ok(file)
}
