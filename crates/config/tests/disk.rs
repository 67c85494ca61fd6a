//! Reading from this host's file system.
#![cfg(feature = "disk")]
// The crate is pure but for the part that is tested here.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use epochgate_config::{Disk, Files, read_text};

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn a_relative_secret_lies_beside_the_configuration() -> Outcome {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("a.psk");
    fs::write(&secret, "0123456789abcdef\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640))?;
    let disk = Disk::beside(&folder.path().join("epochgate.toml"));
    let found = disk.secret("a.psk")?;
    assert_eq!(found.octets.as_slice(), b"0123456789abcdef\n");
    assert_eq!(found.mode, 0o640);
    assert!(!format!("{found:?}").contains("0123"));
    let same = disk.secret(secret.to_str().unwrap_or_default())?;
    assert_eq!(same.octets, found.octets);
    Ok(())
}

#[test]
fn what_could_go_on_for_ever_is_not_read() {
    let disk = Disk::default();
    let Err(error) = disk.secret("/dev/zero") else {
        unreachable!("a device is no secret");
    };
    assert_eq!(error.to_string(), "not a regular file");
    assert!(read_text(Path::new("/dev/zero")).is_err());
}

#[test]
fn a_long_secret_is_read_only_so_far() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("long"), vec![b'x'; 1 << 20])?;
    let disk = Disk::beside(&folder.path().join("c.toml"));
    assert!(disk.secret("long")?.octets.len() < 2000);
    Ok(())
}

#[test]
fn templates_are_found_by_name() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("own.toml"), "priority = 5000")?;
    fs::write(folder.path().join("README"), "")?;
    let disk = Disk::default();
    assert_eq!(disk.template_names(folder.path()), ["own"]);
    let text = disk.template(folder.path(), "own")?;
    assert_eq!(text.as_deref(), Some("priority = 5000"));
    assert_eq!(disk.template(folder.path(), "other")?, None);
    let elsewhere = Disk {
        policies: Some(folder.path().to_owned()),
        ..Disk::default()
    };
    assert_eq!(elsewhere.template(Path::new("/nowhere"), "own")?, text);
    Ok(())
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let Err(error) = read_text(Path::new("/nowhere/epochgate.toml")) else {
        unreachable!("it is not there");
    };
    let want = "can't read /nowhere/epochgate.toml: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), want);
}
