//! `[tunnel.NAME.path]`: how IKE messages and ESP get along the way between the ends.

use epochgate_controller::config::PathConfig;

use std::time::Duration;

use crate::diagnostic::Sink;
use crate::keys::{FRAGMENT_SIZE, NAT_KEEPALIVE};
use crate::reader::Section;
use crate::values::{read_duration, read_number};

/// Instead of a duration: never.
const OFF: &str = "off";

pub(crate) fn read(section: &Section<'_>, sink: &mut Sink) -> PathConfig {
    let fragmentation = section.flag("fragmentation", sink);
    let size = read_number(section, "fragment-size", FRAGMENT_SIZE, sink);
    PathConfig {
        fragment_size: fragmentation
            .is_none_or(|flag| flag.value)
            .then(|| u16::try_from(size).unwrap_or(u16::MAX)),
        nat_keepalive: keepalive(section, sink),
        mobike: section.flag("mobike", sink).is_none_or(|flag| flag.value),
    }
}

fn keepalive(section: &Section<'_>, sink: &mut Sink) -> Option<Duration> {
    if section.says("nat-keepalive", OFF) {
        return None;
    }
    Some(read_duration(section, "nat-keepalive", NAT_KEEPALIVE, sink).value)
}
