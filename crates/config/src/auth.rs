//! How the ends of a tunnel prove their identities: pre-shared key, certificates, and the files
//! that these come from.

mod eap;

use std::io;
use std::ops::RangeInclusive;

use epochgate_controller::Secret;
use epochgate_controller::config::{AuthConfig, Identity, LocalAuth, RemoteAuth};
use epochgate_controller::pki::{
    AuthorityFiles, Credential, Culprit, OwnCertificate, Ppk, RsaPadding, TrustedAuthorities,
};

use crate::diagnostic::{Sink, listed, quoted};
use crate::files::{Files, SecretFile};
use crate::keys::{
    AUTHORITY_FILES_MAX, PPK_ID_LEN_MAX, PPK_LEN_MIN, PPK_REQUIRED, PSK_LEN_MAX, PSK_LEN_MIN,
};
use crate::reader::{At, Section};
use crate::values::{Choice, Words, read_choice, read_flag};

/// Permission bits that a secret's file must not have: writable by its group, anything for others.
const FORBIDDEN_MODE: u32 = 0o027;
/// Names of a certificate that a mistake lists.
const NAMES_SHOWN_MAX: usize = 6;

pub(crate) const SIGNATURES: Choice<RsaPadding, 2> = Choice {
    words: Words([
        ("rsa-pss", RsaPadding::Pss),
        ("rsa-pkcs1", RsaPadding::Pkcs1),
    ]),
    default: 0,
};
/// Whether a stale revocation list is accepted.
pub(crate) const STALE_LISTS: Choice<bool, 2> = Choice {
    words: Words([("refuse", false), ("accept", true)]),
    default: 0,
};

/// Both ends as the file has them.
pub(crate) struct Ends<'s, 'd> {
    pub(crate) local: &'s Section<'d>,
    pub(crate) remote: &'s Section<'d>,
    pub(crate) local_id: Option<&'s At<Identity>>,
    pub(crate) ppk: &'s Section<'d>,
}

/// What was read.
pub(crate) struct Auth {
    pub(crate) config: AuthConfig,
    /// The certificate's subject: our identity where none is written.
    pub(crate) subject: Option<Identity>,
}

/// Reads how both ends authenticate themselves. `None`: something was reported.
pub(crate) fn read(ends: &Ends<'_, '_>, files: &dyn Files, sink: &mut Sink) -> Option<Auth> {
    let before = sink.count();
    let (local, remote) = (ends.local, ends.remote);
    let has = |section: &Section<'_>, keys: &[&str]| keys.iter().any(|key| section.has(key));
    let has_certificate = has(local, &["cert", "key", "signature"]);
    let has_user = has(local, &["eap-user", "eap-password-file"]);
    let has_authorities = has(remote, &["ca", "crl", "stale-crl"]);
    let has_users = remote.has("eap-users-file");
    // Or would, by a key that was reported: no other way is missing then.
    let names_psk = has(local, &["psk-file", "psk"]) || local.may_mean("psk-file");
    let shows = has_certificate || has_user;
    let checks = has_authorities || has_users;
    if has_certificate && has_user {
        refuse_two_ways(local, ["cert", "eap-user"], sink);
    }
    if has_authorities && has_users {
        refuse_two_ways(remote, ["ca", "eap-users-file"], sink);
    }
    let needs_psk = !shows || !checks;
    let psk = if needs_psk && (local.has("psk-file") || !(shows || checks)) {
        read_psk(local, files, sink)
    } else {
        None
    };
    if !needs_psk && local.has("psk-file") {
        let title = "a pre-shared key that neither end proves itself by";
        let label = "nobody would prove anything by it";
        sink.error(local.span_of("psk-file"), title, label)
            .help("remove psk-file");
    }
    let own = has_certificate.then(|| read_certificate(ends, files, sink));
    let user = has_user.then(|| eap::read_user(local, files, sink));
    let authorities = has_authorities.then(|| read_authorities(remote, files, sink));
    let users = has_users.then(|| eap::read_users(remote, files, sink));
    // A password is worth nothing to an end that has not proven itself (RFC 7296 §2.16).
    let wants_authorities = has_user || (has_certificate && !names_psk);
    if wants_authorities && !checks && remote.is_present() {
        let example = "ca = [\"/etc/epochgate/ca.pem\"], whose certificates the peer must show";
        remote.missing("ca", example, sink);
    }
    if (has_users && !has_certificate) || (has_authorities && !shows && !names_psk) {
        let example = "cert = \"/etc/epochgate/NAME.pem\" and key = \"/etc/epochgate/NAME.key\"";
        if local.is_present() {
            local.missing("cert", example, sink);
        }
    } else if has_user && has_users {
        let title = "both ends would prove themselves by EAP";
        sink.error(local.span(), title, "a user here")
            .also(remote.span(), "users here")
            .help("EAP is for one end, which starts; the other has a certificate");
    }
    let ppk = read_ppk(ends.ppk, files, sink);
    if (has_user || has_users) && ends.ppk.is_present() {
        let title = "a post-quantum pre-shared key beside EAP";
        sink.error(ends.ppk.span(), title, "not supported together")
            .help("use certificates or a pre-shared key with it");
    }
    if sink.count() > before {
        return None;
    }
    let (local, subject) = match (own, user) {
        (Some(own), _) => {
            let (credential, subject) = own?;
            (LocalAuth::Certificate(credential), Some(subject))
        }
        (None, Some(user)) => (LocalAuth::Eap(user?), None),
        (None, None) => (LocalAuth::Psk(psk.clone()?), None),
    };
    let remote = match (authorities, users) {
        (Some(authorities), _) => RemoteAuth::Certificate(authorities?),
        (None, Some(users)) => RemoteAuth::Eap(users?),
        (None, None) => RemoteAuth::Psk(psk?),
    };
    let config = AuthConfig { local, remote, ppk };
    Some(Auth { config, subject })
}

/// One end proves itself in one way.
fn refuse_two_ways(section: &Section<'_>, [one, other]: [&str; 2], sink: &mut Sink) {
    let title = format!("{} and {} at one end", quoted(one), quoted(other));
    sink.error(section.span(), title, "proves itself in two ways")
        .help("remove one of them");
}

/// `ppk`: a post-quantum pre-shared key. `None`: there is none, or something was reported.
fn read_ppk(section: &Section<'_>, files: &dyn Files, sink: &mut Sink) -> Option<Ppk> {
    if !section.is_present() {
        return None;
    }
    for (key, example) in [
        ("id", "id = \"branch-2026\", its name at both ends"),
        (
            "file",
            "file = \"/etc/epochgate/NAME.ppk\", a file that holds the key",
        ),
    ] {
        if !section.has(key) {
            section.missing(key, example, sink);
        }
    }
    let required = read_flag(section, "required", PPK_REQUIRED, sink);
    let id = section.text("id", sink);
    if let Some(id) = &id
        && !(1..=PPK_ID_LEN_MAX).contains(&id.value.len())
    {
        let title = "no name for a post-quantum pre-shared key";
        let label = format!("1 to {PPK_ID_LEN_MAX} octets are wanted");
        sink.error(id.span.clone(), title, label);
    }
    let path = section.text("file", sink)?;
    let lengths = PPK_LEN_MIN..=PSK_LEN_MAX;
    let key = read_secret(&path, "post-quantum pre-shared key", lengths, files, sink)?;
    Some(Ppk {
        id: id?.value.as_bytes().to_vec(),
        key,
        required,
    })
}

fn read_certificate(
    ends: &Ends<'_, '_>,
    files: &dyn Files,
    sink: &mut Sink,
) -> Option<(Credential, Identity)> {
    let section = ends.local;
    let padding = read_choice(section, "signature", &SIGNATURES, sink);
    let cert = section.text("cert", sink);
    let key = section.text("key", sink);
    if !section.has("cert") {
        section.missing("cert", "cert = \"/etc/epochgate/NAME.pem\"", sink);
    }
    if !section.has("key") {
        let example = "key = \"/etc/epochgate/NAME.key\", the certificate's private key";
        section.missing("key", example, sink);
    }
    let (cert, key) = (cert?, key?);
    let certificates = read_file(&cert, "certificate", files.certificates(cert.value), sink);
    let private = read_file(&key, "private key", files.private_key(key.value), sink);
    if let Some(file) = &private {
        check_private(file, &key, "private key", sink);
    }
    let (certificates, private) = (certificates?, private?);
    let made = files
        .pki()
        .credential(&certificates, &private.octets, files.now());
    let OwnCertificate {
        mut credential,
        subject,
        names,
    } = match made {
        Ok(made) => made,
        Err(unusable) => {
            let (file, what) = match unusable.culprit {
                Culprit::Key => (&key, "private key"),
                Culprit::Certificate | Culprit::Authority(_) | Culprit::RevocationList(_) => {
                    (&cert, "certificate")
                }
            };
            let title = format!("the {what} in {} is of no use", quoted(file.value));
            sink.error(file.span.clone(), title, unusable.reason);
            return None;
        }
    };
    credential.rsa_padding = padding;
    if let Some(id) = ends.local_id
        && !is_named(&id.value, &names)
    {
        let title = format!(
            "the certificate in {} does not name {}",
            quoted(cert.value),
            quoted(&id.value.to_string())
        );
        let shown: Vec<_> = names
            .iter()
            .take(NAMES_SHOWN_MAX)
            .map(Identity::to_string)
            .collect();
        let shown: Vec<_> = shown.iter().map(String::as_str).collect();
        sink.error(id.span.clone(), title, "peers would refuse it")
            .also(cert.span, "the certificate")
            .help(format!("it names {}", listed(&shown)));
        return None;
    }
    Some((credential, subject))
}

/// Whether a certificate's names have this identity; host names without regard to case.
fn is_named(id: &Identity, names: &[Identity]) -> bool {
    names.iter().any(|name| match (name, id) {
        (Identity::Fqdn(name), Identity::Fqdn(id)) => name.eq_ignore_ascii_case(id),
        (name, id) => name == id,
    })
}

fn read_authorities(
    section: &Section<'_>,
    files: &dyn Files,
    sink: &mut Sink,
) -> Option<TrustedAuthorities> {
    let accept_stale = read_choice(section, "stale-crl", &STALE_LISTS, sink);
    if !section.has("ca") {
        section.missing("ca", "ca = [\"/etc/epochgate/ca.pem\"]", sink);
    }
    let authorities = read_files(section, "ca", "authority", files, sink);
    let lists = match section.has("crl") {
        true => read_files(section, "crl", "revocation list", files, sink),
        false => Some(Vec::new()),
    };
    let (authorities, lists) = (authorities?, lists?);
    let contents = |files: &[(At<&str>, Vec<u8>)]| {
        files
            .iter()
            .map(|(_, octets)| octets.clone())
            .collect::<Vec<_>>()
    };
    let made = files.pki().authorities(&AuthorityFiles {
        authorities: &contents(&authorities),
        revocation_lists: &contents(&lists),
        accept_stale,
        now: files.now(),
    });
    match made {
        Ok(trusted) => Some(trusted),
        Err(unusable) => {
            let (file, what) = match unusable.culprit {
                Culprit::RevocationList(index) => (lists.get(index), "revocation list"),
                Culprit::Authority(index) => (authorities.get(index), "authority"),
                Culprit::Certificate | Culprit::Key => (authorities.first(), "authority"),
            };
            let (path, _) = file?;
            let title = format!("the {what} in {} is of no use", quoted(path.value));
            sink.error(path.span.clone(), title, unusable.reason);
            None
        }
    }
}

/// The files that a list names, all of them or nothing.
fn read_files<'d>(
    section: &Section<'d>,
    key: &str,
    what: &str,
    files: &dyn Files,
    sink: &mut Sink,
) -> Option<Vec<(At<&'d str>, Vec<u8>)>> {
    let paths = section.texts(key, sink)?;
    let wanted = paths.list.len();
    if (wanted == 0 && paths.is_whole) || wanted > AUTHORITY_FILES_MAX {
        let title = format!("{} has {wanted} files", quoted(key));
        let label = format!("1 to {AUTHORITY_FILES_MAX} are wanted");
        sink.error(paths.span, title, label);
        return None;
    }
    let read: Vec<_> = paths
        .list
        .into_iter()
        .filter_map(|path| {
            let octets = read_file(&path, what, files.certificates(path.value), sink)?;
            Some((path, octets))
        })
        .collect();
    (paths.is_whole && read.len() == wanted).then_some(read)
}

/// What is in a file that is no secret to be made up, or a mistake.
pub(super) fn read_file<T>(
    path: &At<&str>,
    what: &str,
    read: io::Result<T>,
    sink: &mut Sink,
) -> Option<T> {
    match read {
        Ok(contents) => Some(contents),
        Err(error) => {
            let title = format!("the {what} in {} can't be read", quoted(path.value));
            let mistake = sink.error(path.span.clone(), title, error.to_string());
            if error.kind() == io::ErrorKind::PermissionDenied {
                mistake.help("this needs the rights of the file's owner, usually root");
            }
            None
        }
    }
}

/// Nobody else can read a file.
pub(super) fn check_private(file: &SecretFile, path: &At<&str>, what: &str, sink: &mut Sink) {
    if file.mode & FORBIDDEN_MODE != 0 {
        let title = format!(
            "the {what} in {} is open to other users",
            quoted(path.value)
        );
        sink.error(path.span.clone(), title, format!("mode {:04o}", file.mode))
            .help(format!("chmod 600 {}", path.value.escape_debug()));
    }
}

fn read_psk(section: &Section<'_>, files: &dyn Files, sink: &mut Sink) -> Option<Secret> {
    let Some(path) = section.text("psk-file", sink) else {
        if section.is_present() && !section.has("psk-file") && !section.has("psk") {
            let example = "psk-file = \"/etc/epochgate/NAME.psk\", a file that holds the secret";
            section.missing("psk-file", example, sink);
        }
        return None;
    };
    read_secret(&path, "secret", PSK_LEN_MIN..=PSK_LEN_MAX, files, sink)
}

/// A secret of its own: everything in the file but one line end at its end.
fn read_secret(
    path: &At<&str>,
    what: &str,
    lengths: RangeInclusive<usize>,
    files: &dyn Files,
    sink: &mut Sink,
) -> Option<Secret> {
    let shown = quoted(path.value);
    let file = match files.secret(path.value) {
        Ok(file) => file,
        Err(error) => {
            let title = format!("the {what} in {shown} can't be read");
            let mistake = sink.error(path.span.clone(), title, error.to_string());
            match error.kind() {
                io::ErrorKind::NotFound => {
                    mistake.help(format!(
                        "make one: (umask 077; openssl rand -base64 32 > {})",
                        path.value.escape_debug()
                    ));
                }
                io::ErrorKind::PermissionDenied => {
                    mistake.help("this needs the rights of the file's owner, usually root");
                }
                _ => {}
            }
            return None;
        }
    };
    check_private(&file, path, what, sink);
    let octets = file.octets.as_slice();
    let secret = octets.strip_suffix(b"\n").unwrap_or(octets);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if !lengths.contains(&secret.len()) {
        let size = if secret.len() < *lengths.start() {
            "short"
        } else {
            "long"
        };
        let title = format!("the {what} in {shown} is too {size}");
        let label = format!("{} to {} octets are wanted", lengths.start(), lengths.end());
        sink.error(path.span.clone(), title, label)
            .help("a good one: openssl rand -base64 32");
        return None;
    }
    Some(Secret::from(secret))
}
