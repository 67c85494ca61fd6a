//! `epochgate-lab-nat INSIDE OUTSIDE PUBLIC`: a NAT with VPN Masquerade for the lab.
//!
//! It makes two TUN interfaces with the first two names, translates what is routed into them, and
//! shows everybody as the address PUBLIC. Routes and orders are its caller's: see
//! `epochgate_integration::lab_nat`. It ends when its standard input does.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [inside, outside, public] = arguments.as_slice() else {
        eprintln!("usage: epochgate-lab-nat INSIDE OUTSIDE PUBLIC");
        return ExitCode::from(2);
    };
    let Ok(public) = public.parse() else {
        eprintln!("epochgate-lab-nat: {public} is no IPv4 address");
        return ExitCode::from(2);
    };
    match epochgate_integration::lab_nat::forward([inside, outside], public) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("epochgate-lab-nat: {error}");
            ExitCode::FAILURE
        }
    }
}
