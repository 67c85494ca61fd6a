//! Typed access to the kernel's IPsec stack (XFRM) over netlink.
