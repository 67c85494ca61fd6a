//! The built command on the machine that runs the tests, whatever that can and cannot do: what it
//! says, how it exits, and that it leaves nothing behind.

use std::error::Error;
use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

fn doctor(arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochgate"));
    command.args(["--socket", "/nowhere/control.sock", "doctor"]);
    Ok(command.args(arguments).env_remove("NO_COLOR").output()?)
}

fn check<'r>(report: &'r Value, name: &str) -> Option<&'r Value> {
    let mut findings = report["findings"].as_array()?.iter();
    findings.find(|finding| finding["check"] == name)
}

#[test]
fn what_the_kernel_answers_is_what_the_report_says() -> Outcome {
    let probe: Value = serde_json::from_slice(&doctor(&["--probe"])?.stdout)?;
    let output = doctor(&["--json"])?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let esp = check(&report, "kernel.esp-ipv4").ok_or("no word of ESP")?;
    match (&probe["refused"], &probe["esp_v4"]) {
        (Value::Null, Value::String(answer)) if answer == "Yes" => {
            assert_eq!(esp["verdict"], "good");
        }
        (Value::Null, answer) => {
            assert!(answer.get("No").is_some(), "{answer}");
            assert_eq!(esp["verdict"], "bad");
            assert_eq!(output.status.code(), Some(1));
            let cure = esp["cure"].to_string();
            assert!(cure.contains("CONFIG_INET_ESP"), "{cure}");
        }
        // Nobody lets this process ask.
        (_, _) => assert_ne!(esp["verdict"], "warn"),
    }
    assert_eq!(report["exit_code"], output.status.code().ok_or("a signal")?);
    assert_eq!(report["schema"], 1);
    assert!(output.stderr.is_empty());
    Ok(())
}

#[test]
fn a_configuration_with_mistakes_is_shown_and_ends_with_2() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("epochgate.toml");
    fs::write(&file, "[tunnel.branch]\nrole = 7\n")?;
    let output = doctor(&["--config", &file.display().to_string()])?;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("role = 7"), "{text}");
    assert!(text.contains("The configuration has mistakes: "), "{text}");
    assert!(!text.contains('\x1b'));
    Ok(())
}

#[test]
fn a_file_or_a_tunnel_that_is_not_there_ends_with_2() -> Outcome {
    let output = doctor(&["--config", "/nowhere/epochgate.toml"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.contains("can't read /nowhere/epochgate.toml"));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("epochgate.toml");
    fs::write(&file, "")?;
    let output = doctor(&["branch", "--config", &file.display().to_string()])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.contains("there is no tunnel branch"));
    Ok(())
}

#[test]
fn without_any_program_to_ask_the_report_is_still_made() -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochgate"));
    let output = command
        .args(["doctor", "--json"])
        .env("PATH", "/nowhere")
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let unread = check(&report, "firewall.unread").ok_or("no word of the firewall")?;
    assert_eq!(unread["verdict"], "unknown");
    let summary = unread["summary"].to_string();
    assert!(summary.contains("nft"), "{summary}");
    Ok(())
}
