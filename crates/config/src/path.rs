//! `[tunnel.NAME.path]`: how IKE messages and ESP get along the way between the ends.

use epochgate_controller::config::PathConfig;

use crate::diagnostic::Sink;
use crate::keys::FRAGMENT_SIZE;
use crate::reader::Section;
use crate::values::read_number;

pub(crate) fn read(section: &Section<'_>, sink: &mut Sink) -> PathConfig {
    let fragmentation = section.flag("fragmentation", sink);
    let size = read_number(section, "fragment-size", FRAGMENT_SIZE, sink);
    PathConfig {
        fragment_size: fragmentation
            .is_none_or(|flag| flag.value)
            .then(|| u16::try_from(size).unwrap_or(u16::MAX)),
    }
}
