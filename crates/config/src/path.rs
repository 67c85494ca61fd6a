//! `[tunnel.NAME.path]`: how IKE messages and ESP get along the way between the ends.

use epochgate_controller::config::PathConfig;

use std::time::Duration;

use crate::diagnostic::Sink;
use crate::keys::{FRAGMENT_SIZE, FRAGMENTATION, MOBIKE, NAT_KEEPALIVE};
use crate::reader::Section;
use crate::values::{read_duration, read_flag, read_number};

/// Instead of a duration: never.
pub(crate) const OFF: &str = "off";

pub(crate) fn read(section: &Section<'_>, sink: &mut Sink) -> PathConfig {
    let fragmentation = read_flag(section, "fragmentation", FRAGMENTATION, sink);
    let size = read_number(section, "fragment-size", FRAGMENT_SIZE, sink).value;
    PathConfig {
        fragment_size: fragmentation.then(|| u16::try_from(size).unwrap_or(u16::MAX)),
        nat_keepalive: keepalive(section, sink),
        mobike: read_flag(section, "mobike", MOBIKE, sink),
    }
}

fn keepalive(section: &Section<'_>, sink: &mut Sink) -> Option<Duration> {
    if section.says("nat-keepalive", OFF) {
        return None;
    }
    Some(read_duration(section, "nat-keepalive", NAT_KEEPALIVE, sink).value)
}
