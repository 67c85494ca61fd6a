//! `tunnel.NAME.interface`: the xfrm interface of a route-based tunnel.

use epochgate_controller::config::InterfaceConfig;

use crate::diagnostic::{Sink, quoted};
use crate::keys::{INTERFACE_MTU, INTERFACE_NAME_LEN_MAX};
use crate::reader::Section;
use crate::values::read_number;

/// Reads the section of the tunnel whose other keys are in `tunnel`. `None`: the tunnel has no
/// interface, or something was reported.
pub(crate) fn read(tunnel: &Section<'_>, sink: &mut Sink) -> Option<InterfaceConfig> {
    let section = tunnel.section("interface", sink);
    if !tunnel.has("interface") {
        return None;
    }
    if !section.has("name") {
        section.missing("name", "interface = { name = \"ipsec0\" }", sink);
    }
    let mtu = read_number(&section, "mtu", INTERFACE_MTU, sink).value;
    let name = section.text("name", sink)?;
    // What the kernel takes (dev_valid_name).
    let plain = |octet: u8| octet.is_ascii_graphic() && octet != b'/' && octet != b':';
    let good = (1..=INTERFACE_NAME_LEN_MAX).contains(&name.value.len())
        && name.value.bytes().all(plain)
        && !matches!(name.value, "." | "..");
    if !good {
        let title = format!("{} can't be an interface's name", quoted(name.value));
        sink.error(name.span, title, "not a name that the kernel takes")
            .help(format!(
                "1 to {INTERFACE_NAME_LEN_MAX} letters, digits and signs, no blanks, no / and no :"
            ));
        return None;
    }
    Some(InterfaceConfig {
        name: name.value.into(),
        mtu,
    })
}
