//! Policy templates (`xfrm-policies/*.toml`): how the policies of a tunnel look in the kernel.
//!
//! A tunnel names one. It is looked for in the directory of templates, then among those that are
//! built in, so that a tunnel works without an installation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use epochgate_controller::config::{PolicyTemplate, Role};
use ipnet::IpNet;

use crate::diagnostic::{Diagnostics, Sink, listed, nearest, quoted};
use crate::files::Files;
use crate::keys::{PRIORITY, TEMPLATE_EXEMPT_ND, TEMPLATE_FORWARD, TEMPLATE_ROUTES};
use crate::reader::{At, Schema, Section};
use crate::reference;
use crate::values;

/// The templates that are built in: names and texts.
pub const BUILT_IN: [(&str, &str); 3] = [
    (
        "site-to-site",
        include_str!("../../../xfrm-policies/site-to-site.toml"),
    ),
    (
        "host-to-host",
        include_str!("../../../xfrm-policies/host-to-host.toml"),
    ),
    (
        "road-warrior",
        include_str!("../../../xfrm-policies/road-warrior.toml"),
    ),
];

/// The outer address of that end, as a network of one host.
const OUTER: &str = "%outer";

/// Networks that a template gives to an end that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultNetwork {
    /// This one, if the other end has networks of its family.
    Network(IpNet),
    /// The end's outer address alone.
    Outer,
}

/// The networks for the ends of a tunnel; an empty list: the tunnel must name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DefaultTraffic {
    /// Our side.
    local: Vec<DefaultNetwork>,
    /// The peer's side.
    remote: Vec<DefaultNetwork>,
}

/// A template file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What the controller needs of it.
    pub policy: PolicyTemplate,
    /// One line for a person.
    pub description: String,
    client: DefaultTraffic,
    server: DefaultTraffic,
}

impl Template {
    /// Our side's networks of a tunnel that names none; `None`: it depends on the unknown role.
    pub(crate) fn local(&self, role: Option<Role>) -> Option<&[DefaultNetwork]> {
        self.side(role, |traffic| &traffic.local)
    }

    /// As [`Template::local`], for the peer's side.
    pub(crate) fn remote(&self, role: Option<Role>) -> Option<&[DefaultNetwork]> {
        self.side(role, |traffic| &traffic.remote)
    }

    fn side(
        &self,
        role: Option<Role>,
        of: impl Fn(&DefaultTraffic) -> &[DefaultNetwork],
    ) -> Option<&[DefaultNetwork]> {
        let (client, server) = (of(&self.client), of(&self.server));
        match role {
            Some(Role::Client) => Some(client),
            Some(Role::Server) => Some(server),
            None => (client == server).then_some(client),
        }
    }
}

/// Reads the template `name` from `text`; `file` is for messages.
///
/// # Errors
/// Every mistake that was found.
pub fn parse(name: &str, file: &str, text: &str) -> Result<Template, Diagnostics> {
    let mut sink = Sink::new(file, text);
    let template = crate::parse(text, &mut sink).map(|table| {
        let schema = Schema {
            known: reference::TEMPLATE_KEYS,
            unsupported: &[],
        };
        let root = Section::root(schema, &table, &mut sink);
        let mut flag = |key: &str, default: bool| values::read_flag(&root, key, default, &mut sink);
        let policy = PolicyTemplate {
            name: name.to_owned(),
            forward: flag("forward", TEMPLATE_FORWARD),
            exempt_neighbour_discovery: flag("exempt-neighbour-discovery", TEMPLATE_EXEMPT_ND),
            routes: flag("routes", TEMPLATE_ROUTES),
            priority: values::read_number(&root, "priority", PRIORITY, &mut sink).value,
        };
        let traffic = root.section("traffic", &mut sink);
        let description = root.text("description", &mut sink);
        Template {
            policy,
            description: description.map_or_else(String::new, |text| text.value.to_owned()),
            client: default_traffic(&traffic.section("client", &mut sink), &mut sink),
            server: default_traffic(&traffic.section("server", &mut sink), &mut sink),
        }
    });
    sink.finish(template)
}

fn default_traffic(section: &Section<'_>, sink: &mut Sink) -> DefaultTraffic {
    let mut networks = |key| {
        let texts = section.texts(key, sink).map(|texts| texts.list);
        let read = |text: At<&str>| match text.value {
            OUTER => Some(DefaultNetwork::Outer),
            _ => values::network(&text, sink).map(DefaultNetwork::Network),
        };
        texts.into_iter().flatten().filter_map(read).collect()
    };
    DefaultTraffic {
        local: networks("local"),
        remote: networks("remote"),
    }
}

/// Stands for a template that is not known, in a tunnel that is only compared with others.
pub(crate) fn unknown() -> PolicyTemplate {
    PolicyTemplate {
        name: String::new(),
        forward: TEMPLATE_FORWARD,
        exempt_neighbour_discovery: TEMPLATE_EXEMPT_ND,
        routes: TEMPLATE_ROUTES,
        priority: PRIORITY.default,
    }
}

/// The templates of one run; each is read once.
pub(crate) struct Templates<'f> {
    files: &'f dyn Files,
    /// `None`: what the file says of it was reported.
    directory: Option<PathBuf>,
    read: BTreeMap<String, Option<Template>>,
}

impl<'f> Templates<'f> {
    pub(crate) fn new(files: &'f dyn Files, directory: Option<PathBuf>) -> Self {
        Self {
            files,
            directory,
            read: BTreeMap::new(),
        }
    }

    /// The template that `name` names. Mistakes are reported where they are: in the template, once,
    /// or at `name`.
    pub(crate) fn find(&mut self, name: &At<&str>, sink: &mut Sink) -> Option<Template> {
        let directory = self.directory.clone()?;
        if let Some(known) = self.read.get(name.value) {
            return known.clone();
        }
        let template = match self.text(&directory, name.value) {
            Ok(Some((file, text))) => match parse(name.value, &file, &text) {
                Ok(template) => Some(template),
                Err(mistakes) => {
                    sink.append(mistakes);
                    None
                }
            },
            Ok(None) => {
                self.refuse_unknown(&directory, name, sink);
                return None;
            }
            Err(error) => {
                let title = format!("the policy template {} can't be read", quoted(name.value));
                sink.error(name.span.clone(), title, error.to_string());
                return None;
            }
        };
        self.read.insert(name.value.to_owned(), template.clone());
        template
    }

    fn text(&self, directory: &Path, name: &str) -> std::io::Result<Option<(String, String)>> {
        if !is_template_name(name) {
            return Ok(None);
        }
        if let Some(text) = self.files.template(directory, name)? {
            let file = directory.join(format!("{name}.toml"));
            return Ok(Some((file.display().to_string(), text)));
        }
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
        Ok(built_in.map(|(name, text)| (format!("built-in {name}.toml"), (*text).to_owned())))
    }

    fn refuse_unknown(&self, directory: &Path, name: &At<&str>, sink: &mut Sink) {
        let mut names = self.files.template_names(directory);
        names.retain(|name| is_template_name(name));
        names.extend(BUILT_IN.iter().map(|(name, _)| (*name).to_owned()));
        names.sort();
        names.dedup();
        let title = format!("there is no policy template {}", quoted(name.value));
        let label = format!("{} are there", listed(&names).replace(" or ", " and "));
        let mistake = sink.error(name.span.clone(), title, label);
        if let Some(meant) = nearest(name.value, &names) {
            mistake.help(format!("did you mean {}?", quoted(meant)));
        }
        mistake.help(format!(
            "templates of your own go into {}",
            directory.display()
        ));
    }
}

/// A name that can't lead out of the directory.
fn is_template_name(name: &str) -> bool {
    const LEN_MAX: usize = 64;
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    (1..=LEN_MAX).contains(&name.len()) && name.bytes().all(plain)
}
