//! Users of EAP: who we are, or whom we let in.

use epochgate_controller::Secret;
use epochgate_controller::config::{EapUser, EapUsers};
use zeroize::Zeroizing;

use super::{check_private, read_file, read_secret};
use crate::diagnostic::{Sink, quoted};
use crate::files::Files;
use crate::keys::{PASSWORD_LEN_MAX, USER_LEN_MAX, USERS_MAX};
use crate::reader::{At, Section};

/// Wrong lines of a list of users whose numbers are told at most.
const LINES_SHOWN_MAX: usize = 8;

/// `local.eap-user` and its password.
pub(super) fn read_user(
    section: &Section<'_>,
    files: &dyn Files,
    sink: &mut Sink,
) -> Option<EapUser> {
    for (key, example) in [
        ("eap-user", "eap-user = \"alice\""),
        (
            "eap-password-file",
            "eap-password-file = \"/etc/epochgate/alice.password\", a file that holds the password",
        ),
    ] {
        if !section.has(key) {
            section.missing(key, example, sink);
        }
    }
    let name = section.text("eap-user", sink);
    let path = section.text("eap-password-file", sink);
    if let Some(name) = &name
        && !is_name(name.value)
    {
        let title = format!("{} is no user's name", quoted(name.value));
        let label = format!("1 to {USER_LEN_MAX} printable octets without a colon");
        sink.error(name.span.clone(), title, label);
    }
    let password = read_secret(&path?, "password", 1..=PASSWORD_LEN_MAX, files, sink)?;
    Some(EapUser {
        name: name?.value.to_owned(),
        password,
    })
}

/// `remote.eap-users-file`: a line `name:password` for each user; empty lines and those that begin
/// with `#` are skipped.
pub(super) fn read_users(
    section: &Section<'_>,
    files: &dyn Files,
    sink: &mut Sink,
) -> Option<EapUsers> {
    let path = section.text("eap-users-file", sink)?;
    let file = read_file(&path, "list of users", files.private_key(path.value), sink)?;
    check_private(&file, &path, "list of users", sink);
    let Ok(text) = std::str::from_utf8(&file.octets) else {
        return wrong(&path, "it is no UTF-8 text", sink);
    };
    let mut users = Vec::new();
    let mut wrong_lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let user = line
            .split_once(':')
            .filter(|(name, password)| is_name(name) && is_password(password));
        let Some((name, password)) = user else {
            wrong_lines.push(index + 1);
            continue;
        };
        let password = Zeroizing::new(password.as_bytes().to_vec());
        users.push(EapUser {
            name: name.to_owned(),
            password: Secret::from(password.as_slice()),
        });
    }
    // Never the lines themselves: there are passwords in them.
    match wrong_lines.as_slice() {
        [] => {}
        [line] => return wrong(&path, &format!("line {line} is not name:password"), sink),
        lines => {
            let shown: Vec<_> = lines
                .iter()
                .take(LINES_SHOWN_MAX)
                .map(usize::to_string)
                .collect();
            let more = match lines.len().saturating_sub(LINES_SHOWN_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let reason = format!("lines {}{more} are not name:password", shown.join(", "));
            return wrong(&path, &reason, sink);
        }
    }
    match users.len() {
        0 => wrong(&path, "there is nobody in it", sink),
        1..=USERS_MAX => Some(EapUsers::new(users)),
        _ => wrong(&path, &format!("more than {USERS_MAX} users"), sink),
    }
}

fn wrong(path: &At<&str>, reason: &str, sink: &mut Sink) -> Option<EapUsers> {
    let title = format!("the list of users in {} is of no use", quoted(path.value));
    sink.error(path.span.clone(), title, reason)
        .help("a line for each user: name:password");
    None
}

fn is_name(text: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && c != ':';
    (1..=USER_LEN_MAX).contains(&text.len()) && text.chars().all(is_plain)
}

fn is_password(text: &str) -> bool {
    (1..=PASSWORD_LEN_MAX).contains(&text.len())
}
