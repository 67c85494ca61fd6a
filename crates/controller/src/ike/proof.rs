//! AUTH payloads, ours and the peer's (RFC 7296 §2.15, §3.6–3.8): what an end shows for its
//! identity, whatever proves it. What both ends can do about it is said in IKE_SA_INIT.

use std::collections::BTreeSet;

use epochgate_ike_wire::{
    AuthMethod, Authentication, Certificate, CertificateEncoding, CertificateRequest, NotifyType,
    Payload,
};

use crate::Secret;
use crate::config::{AuthConfig, LocalAuth, RemoteAuth, TunnelConfig};
use crate::pki::{CERTIFICATE_LEN_MAX, Credential, Distrust, Evidence, PATH_LEN_MAX};

use super::context::Context;
use super::init::Handshake;
use super::keys::Part;
use super::payloads::{Payloads, notify_with};
use super::ppk;
use super::signature::{self, Hashes};

/// Authorities that one CERTREQ names at most; a responder has those of all tunnels that the peer
/// may belong to.
const AUTHORITIES_MAX: usize = 64;

/// What the peer's IKE_SA_INIT says of how it can authenticate itself and us.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Abilities {
    /// Hashes for digital signatures; `None`: it does not speak RFC 7427.
    pub(super) hashes: Option<Hashes>,
    /// It can use a post-quantum pre-shared key (RFC 8784).
    pub(super) ppk: bool,
}

impl Abilities {
    /// From the payloads of its IKE_SA_INIT message.
    pub(super) fn read(payloads: &Payloads) -> Self {
        let hashes = payloads.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS);
        Self {
            hashes: hashes.map(|it| Hashes::read(&it.data)),
            ppk: payloads.notify(NotifyType::USE_PPK).is_some(),
        }
    }

    /// What our IKE_SA_INIT request says.
    pub(super) fn offer(config: &TunnelConfig) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if signs(&config.auth) {
            payloads.push(hashes());
        }
        if config.auth.ppk.is_some() {
            payloads.push(ppk::offer());
        }
        payloads
    }

    /// What our IKE_SA_INIT response says to a peer with these abilities, which may belong to any
    /// of these tunnels.
    pub(super) fn answer<'a>(
        self,
        candidates: impl Iterator<Item = &'a TunnelConfig> + Clone,
    ) -> Vec<Payload> {
        let mut payloads = Vec::new();
        payloads.extend(certificate_request(candidates.clone()));
        let mut auths = candidates.map(|config| &config.auth);
        if self.hashes.is_some() && auths.clone().any(signs) {
            payloads.push(hashes());
        }
        if self.ppk && auths.any(|auth| auth.ppk.is_some()) {
            payloads.push(ppk::offer());
        }
        payloads
    }
}

/// Whether either end signs.
fn signs(auth: &AuthConfig) -> bool {
    let ours = match &auth.local {
        LocalAuth::Certificate(_) => true,
        LocalAuth::Psk(_) | LocalAuth::Eap(_) => false,
    };
    let theirs = match &auth.remote {
        RemoteAuth::Certificate(_) => true,
        RemoteAuth::Psk(_) | RemoteAuth::Eap(_) => false,
    };
    ours || theirs
}

fn hashes() -> Payload {
    notify_with(NotifyType::SIGNATURE_HASH_ALGORITHMS, Hashes::ours())
}

/// Asks for a certificate of the authorities of these tunnels (RFC 7296 §3.7).
pub(super) fn certificate_request<'a>(
    tunnels: impl Iterator<Item = &'a TunnelConfig>,
) -> Option<Payload> {
    let mut hashes = BTreeSet::new();
    for config in tunnels {
        match &config.auth.remote {
            RemoteAuth::Certificate(authorities) => {
                hashes.extend(authorities.0.key_hashes().iter().copied());
            }
            RemoteAuth::Psk(_) | RemoteAuth::Eap(_) => {}
        }
    }
    let authorities: Vec<u8> = hashes.into_iter().take(AUTHORITIES_MAX).flatten().collect();
    (!authorities.is_empty()).then_some(Payload::CertificateRequest(CertificateRequest {
        encoding: CertificateEncoding::X509_SIGNATURE,
        authorities,
    }))
}

/// Our proof.
pub(super) struct Proof {
    /// CERT payloads, our own certificate first.
    pub(super) certificates: Vec<Payload>,
    /// The AUTH payload.
    pub(super) auth: Payload,
}

/// Proves our identity, whose ID payload has this body.
///
/// # Errors
/// Why it can't be proven to this peer, and who must act.
pub(super) fn prove(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    handshake: &Handshake,
    by: Part,
    id_body: &[u8],
) -> Result<Proof, String> {
    match &config.auth.local {
        LocalAuth::Psk(psk) => Ok(Proof {
            certificates: Vec::new(),
            auth: prove_by_key(ctx, handshake, by, id_body, psk),
        }),
        // The MSK proves it, once there is one (RFC 7296 §2.16).
        LocalAuth::Eap(_) => Err(format!(
            "tunnel {} proves its identity by EAP, which only a client can: it must start",
            config.name
        )),
        LocalAuth::Certificate(credential) => sign(ctx, credential, config, handshake, by, id_body),
    }
}

/// The AUTH payload of a shared key, be it pre-shared or made by EAP (RFC 7296 §2.15, §2.16).
pub(super) fn prove_by_key(
    ctx: &Context<'_>,
    handshake: &Handshake,
    by: Part,
    id_body: &[u8],
    key: &Secret,
) -> Payload {
    Payload::Authentication(Authentication {
        method: AuthMethod::SHARED_KEY_MIC,
        data: code(ctx, handshake, by, id_body, key).expose().to_vec(),
    })
}

/// Judges an AUTH payload by a shared key.
pub(super) fn judge_by_key(
    ctx: &Context<'_>,
    handshake: &Handshake,
    by: Part,
    id_body: &[u8],
    key: &Secret,
    auth: &Authentication,
) -> Result<(), Doubt> {
    if auth.method != AuthMethod::SHARED_KEY_MIC {
        return Err(Doubt::Method(auth.method.to_string()));
    }
    let expected = code(ctx, handshake, by, id_body, key);
    if ctx.crypto.equal(expected.expose(), &auth.data) {
        Ok(())
    } else {
        Err(Doubt::WrongSecret)
    }
}

fn code(
    ctx: &Context<'_>,
    handshake: &Handshake,
    by: Part,
    id_body: &[u8],
    key: &Secret,
) -> Secret {
    let prf = handshake.algorithms.prf;
    handshake
        .signed(by, id_body)
        .authenticator(ctx.crypto, prf, key)
}

fn sign(
    ctx: &Context<'_>,
    credential: &Credential,
    config: &TunnelConfig,
    handshake: &Handshake,
    by: Part,
    id_body: &[u8],
) -> Result<Proof, String> {
    let tunnel = &config.name;
    let (first, last) = credential.validity;
    if ctx.wall_clock.is_some_and(|now| last < now) {
        return Err(format!(
            "our certificate of tunnel {tunnel} has expired: renew it and reload"
        ));
    }
    if ctx.wall_clock.is_some_and(|now| now < first) {
        return Err(format!(
            "our certificate of tunnel {tunnel} is not valid yet: is this host's clock right?"
        ));
    }
    let kind = credential.key.kind();
    let hashes = handshake.abilities.hashes;
    let choice = signature::choose(kind, credential.rsa_padding, hashes).ok_or_else(|| {
        format!(
            "the peer of tunnel {tunnel} knows no hash that our {kind:?} key signs with (RFC 7427): \
             use another kind of key, or allow SHA-2 there"
        )
    })?;
    let octets = handshake
        .signed(by, id_body)
        .to_octets(ctx.crypto, handshake.algorithms.prf);
    let signature = credential
        .key
        .sign(choice.scheme, &octets)
        .map_err(|_| format!("the private key of tunnel {tunnel} cannot sign"))?;
    let certificates = credential.certificates.iter().map(|der| {
        Payload::Certificate(Certificate {
            encoding: CertificateEncoding::X509_SIGNATURE,
            data: der.clone(),
        })
    });
    Ok(Proof {
        certificates: certificates.collect(),
        auth: Payload::Authentication(signature::write(choice, &signature)),
    })
}

/// Why the peer did not prove its identity to one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It proves it in another way than the tunnel asks for.
    Method(String),
    /// Its AUTH is not made with our pre-shared key.
    WrongSecret,
    /// Its certificates or signature.
    Certificate(Distrust),
    /// We have no wall-clock time to judge certificates by.
    NoClock,
    /// A post-quantum pre-shared key is required and it has another or none.
    Ppk,
}

/// Judges the peer's proof for the identity whose ID payload has this body. `auth` is its AUTH, or
/// what stands for it (RFC 8784); the certificates are in `payloads`.
pub(super) fn judge(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    handshake: &Handshake,
    by: Part,
    id_body: &[u8],
    payloads: &Payloads,
    auth: Option<&Authentication>,
) -> Result<(), Doubt> {
    let Some(auth) = auth else {
        return Err(Doubt::Method("EAP".to_owned()));
    };
    match &config.auth.remote {
        RemoteAuth::Psk(psk) => judge_by_key(ctx, handshake, by, id_body, psk, auth),
        // It has to leave AUTH out and wait for our EAP request.
        RemoteAuth::Eap(_) => Err(Doubt::Method(auth.method.to_string())),
        RemoteAuth::Certificate(authorities) => {
            let Some((schemes, signature)) = signature::read(auth) else {
                return Err(Doubt::Method(auth.method.to_string()));
            };
            let Some(now) = ctx.wall_clock else {
                return Err(Doubt::NoClock);
            };
            let certificates = certificates(payloads).map_err(Doubt::Certificate)?;
            let message = handshake
                .signed(by, id_body)
                .to_octets(ctx.crypto, handshake.algorithms.prf);
            let mut verdict = Err(Distrust::BadSignature);
            for scheme in schemes {
                verdict = authorities.0.judge(&Evidence {
                    certificates: &certificates,
                    identity: &config.remote.id,
                    scheme,
                    message: &message,
                    signature,
                    now,
                });
                if verdict != Err(Distrust::BadSignature) {
                    break;
                }
            }
            verdict.map_err(Doubt::Certificate)
        }
    }
}

/// The X.509 certificates that came. A hash and a URL is none: nothing is fetched for somebody who
/// is not authenticated (RFC 7296 §3.6 lets us not support it).
fn certificates(payloads: &Payloads) -> Result<Vec<Vec<u8>>, Distrust> {
    let x509 = payloads
        .certificates
        .iter()
        .filter(|it| it.encoding == CertificateEncoding::X509_SIGNATURE);
    let certificates: Vec<Vec<u8>> = x509
        .take(PATH_LEN_MAX + 1)
        .map(|it| it.data.clone())
        .collect();
    let is_too_long = |der: &Vec<u8>| der.len() > CERTIFICATE_LEN_MAX;
    if certificates.is_empty() {
        Err(Distrust::NoCertificate)
    } else if certificates.len() > PATH_LEN_MAX || certificates.iter().any(is_too_long) {
        Err(Distrust::TooLarge)
    } else {
        Ok(certificates)
    }
}

/// What our tunnel asks the peer to prove its identity by.
fn wanted(auth: &AuthConfig) -> &'static str {
    match auth.remote {
        RemoteAuth::Psk(_) => "has a pre-shared key: configure one there",
        RemoteAuth::Eap(_) => "wants EAP-MSCHAPv2: configure it there",
        RemoteAuth::Certificate(_) => {
            "wants a certificate and a signature by it: configure them there"
        }
    }
}

impl Doubt {
    /// For the log: `who` has not proven its identity to this tunnel.
    pub(super) fn explain(&self, who: &str, config: &TunnelConfig) -> String {
        let tunnel = &config.name;
        match self {
            Self::Method(method) => format!(
                "{who} authenticates by {method}, but tunnel {tunnel} {}",
                wanted(&config.auth)
            ),
            Self::WrongSecret => format!(
                "{who} does not know our pre-shared key: check psk of tunnel {tunnel} on both ends"
            ),
            Self::Certificate(distrust) => {
                format!("{who} is not believed by tunnel {tunnel}: {distrust}")
            }
            Self::Ppk => format!(
                "{who} has not got the post-quantum pre-shared key that tunnel {tunnel} requires: \
                 check ppk on both ends"
            ),
            Self::NoClock => format!(
                "{who} shows a certificate to tunnel {tunnel}, but the time is not known here"
            ),
        }
    }
}
