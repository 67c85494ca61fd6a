//! Key derivation: from nonces and shared secrets to the keys of IKE SAs and Child SAs, and to
//! what AUTH payloads carry (RFC 7296 §2.13–2.17).

use epochgate_ike_wire::IkeSpi;
use zeroize::Zeroize;

use crate::Secret;
use crate::crypto::{Cipher, Crypto, Prf};

/// What a pre-shared key is first hashed with (RFC 7296 §2.15).
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// Who initiated an exchange, and so whose keys come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Initiator,
    Responder,
}

/// Both SPIs of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IkeSpis {
    pub(super) initiator: IkeSpi,
    pub(super) responder: IkeSpi,
}

/// Both nonces of an exchange.
#[derive(Clone, Copy)]
pub(super) struct Nonces<'a> {
    pub(super) initiator: &'a [u8],
    pub(super) responder: &'a [u8],
}

/// A value for the initiator and one for the responder.
#[derive(Clone, Debug)]
pub(super) struct ByPart<T> {
    pub(super) initiator: T,
    pub(super) responder: T,
}

impl<T> ByPart<T> {
    /// Ours and the peer's, if we are `us`.
    pub(super) fn into_ours_and_theirs(self, us: Part) -> (T, T) {
        match us {
            Part::Initiator => (self.initiator, self.responder),
            Part::Responder => (self.responder, self.initiator),
        }
    }
}

/// The keys of an IKE SA.
#[derive(Clone, Debug)]
pub(super) struct IkeKeys {
    /// SK_d: what Child SAs' keys come from.
    pub(super) derive: Secret,
    /// SK_ei and SK_er, each with what [`Cipher::material_len`] counts after it: an AEAD's salt,
    /// which is the end of its SK_e (RFC 5282 §7.1), or SK_ai and SK_ar.
    pub(super) protect: ByPart<Secret>,
    /// SK_pi and SK_pr: what binds identities into AUTH.
    pub(super) prove: ByPart<Secret>,
}

impl IkeKeys {
    /// Keys of a new IKE SA (RFC 7296 §2.14).
    pub(super) fn derive(
        crypto: &dyn Crypto,
        prf: Prf,
        cipher: Cipher,
        shared: &Secret,
        nonces: Nonces<'_>,
        spis: &IkeSpis,
    ) -> Self {
        let mut key = [nonces.initiator, nonces.responder].concat();
        let seed = crypto.prf(prf, &key, &[shared.expose()]);
        key.zeroize();
        Self::from_seed(crypto, prf, cipher, &seed, nonces, spis)
    }

    /// Keys of an IKE SA that succeeds another (RFC 7296 §2.18). The exchange belongs to the old
    /// one, and so does the PRF that makes SKEYSEED of its SK_d; `prf` is the new one's.
    pub(super) fn succeed(
        crypto: &dyn Crypto,
        old: (Prf, &Secret),
        (prf, cipher): (Prf, Cipher),
        shared: &Secret,
        nonces: Nonces<'_>,
        spis: &IkeSpis,
    ) -> Self {
        let (old_prf, derive) = old;
        let seed = crypto.prf(
            old_prf,
            derive.expose(),
            &[shared.expose(), nonces.initiator, nonces.responder],
        );
        Self::from_seed(crypto, prf, cipher, &seed, nonces, spis)
    }

    /// The keys with a post-quantum pre-shared key mixed into SK_d, SK_pi and SK_pr: each is
    /// `prf+ (PPK, the key before)` (RFC 8784 §3).
    pub(super) fn with_ppk(&self, crypto: &dyn Crypto, prf: Prf, ppk: &Secret) -> Self {
        let mix = |key: &Secret| Secret::from(expand(crypto, prf, ppk, &[key.expose()], key.len()));
        Self {
            derive: mix(&self.derive),
            protect: self.protect.clone(),
            prove: ByPart {
                initiator: mix(&self.prove.initiator),
                responder: mix(&self.prove.responder),
            },
        }
    }

    /// `prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr)`.
    fn from_seed(
        crypto: &dyn Crypto,
        prf: Prf,
        cipher: Cipher,
        seed: &Secret,
        nonces: Nonces<'_>,
        spis: &IkeSpis,
    ) -> Self {
        let (prf_len, integrity_len) = (prf.output_len(), cipher.integrity_key_len());
        let encryption_len = cipher.key_len() + cipher.salt_len();
        let mut stream = expand(
            crypto,
            prf,
            seed,
            &[
                nonces.initiator,
                nonces.responder,
                spis.initiator.as_bytes(),
                spis.responder.as_bytes(),
            ],
            3 * prf_len + 2 * cipher.material_len(),
        );
        // SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr
        let mut take = Splitter::new(&stream);
        let derive = take.next(prf_len);
        let integrity = [take.next(integrity_len), take.next(integrity_len)];
        let encryption = [take.next(encryption_len), take.next(encryption_len)];
        let [initiator, responder] = [0, 1].map(|part: usize| {
            Secret::from([encryption[part].expose(), integrity[part].expose()].concat())
        });
        let keys = Self {
            derive,
            protect: ByPart {
                initiator,
                responder,
            },
            prove: ByPart {
                initiator: take.next(prf_len),
                responder: take.next(prf_len),
            },
        };
        stream.zeroize();
        keys
    }
}

/// Keys of a Child SA, those of what the exchange's initiator sends first (RFC 7296 §2.17).
/// `shared` is the exchange's own g^ir, if it had a key exchange.
pub(super) fn child_keys(
    crypto: &dyn Crypto,
    prf: Prf,
    derive: &Secret,
    cipher: Cipher,
    shared: Option<&Secret>,
    nonces: Nonces<'_>,
) -> ByPart<Secret> {
    let key_len = cipher.material_len();
    let shared = shared.map_or(&[][..], Secret::expose);
    let mut stream = expand(
        crypto,
        prf,
        derive,
        &[shared, nonces.initiator, nonces.responder],
        2 * key_len,
    );
    let mut take = Splitter::new(&stream);
    let keys = ByPart {
        initiator: take.next(key_len),
        responder: take.next(key_len),
    };
    stream.zeroize();
    keys
}

/// What one end signs (RFC 7296 §2.15): its own IKE_SA_INIT message, the other's nonce, its own
/// identity.
pub(super) struct SignedOctets<'a> {
    /// The octets of the IKE_SA_INIT message that this end sent.
    pub(super) message: &'a [u8],
    /// The nonce that the other end sent.
    pub(super) nonce: &'a [u8],
    /// The body of this end's ID payload.
    pub(super) id_body: &'a [u8],
    /// This end's SK_p.
    pub(super) prove: &'a Secret,
    /// IntAuth, if there were IKE_INTERMEDIATE exchanges (RFC 9242 §3.3.2); else nothing.
    pub(super) intermediate: &'a [u8],
}

impl SignedOctets<'_> {
    /// What a signature covers: all of it (RFC 7296 §2.15).
    pub(super) fn to_octets(&self, crypto: &dyn Crypto, prf: Prf) -> Vec<u8> {
        let identity = crypto.prf(prf, self.prove.expose(), &[self.id_body]);
        [
            self.message,
            self.nonce,
            identity.expose(),
            self.intermediate,
        ]
        .concat()
    }

    /// The shared key message integrity code of an AUTH payload (RFC 7296 §2.15).
    pub(super) fn authenticator(&self, crypto: &dyn Crypto, prf: Prf, psk: &Secret) -> Secret {
        let padded = crypto.prf(prf, psk.expose(), &[KEY_PAD]);
        let identity = crypto.prf(prf, self.prove.expose(), &[self.id_body]);
        crypto.prf(
            prf,
            padded.expose(),
            &[
                self.message,
                self.nonce,
                identity.expose(),
                self.intermediate,
            ],
        )
    }
}

/// prf+ (RFC 7296 §2.13): T1 | T2 | …, each made from the one before it. `length` is far below the
/// limit of 255 blocks.
fn expand(crypto: &dyn Crypto, prf: Prf, key: &Secret, seed: &[&[u8]], length: usize) -> Vec<u8> {
    let mut stream = Vec::with_capacity(length.next_multiple_of(prf.output_len()));
    let mut previous: Option<Secret> = None;
    let mut counter = 1_u8;
    while stream.len() < length {
        let number = [counter];
        let mut data = Vec::with_capacity(seed.len() + 2);
        data.extend(previous.as_ref().map(Secret::expose));
        data.extend(seed);
        data.push(&number);
        let block = crypto.prf(prf, key.expose(), &data);
        stream.extend_from_slice(block.expose());
        previous = Some(block);
        counter = counter.wrapping_add(1);
    }
    stream
}

/// Cuts key material into keys.
struct Splitter<'a>(&'a [u8]);

impl<'a> Splitter<'a> {
    fn new(stream: &'a [u8]) -> Self {
        Self(stream)
    }

    /// The next `length` octets; the stream was made long enough.
    fn next(&mut self, length: usize) -> Secret {
        let (key, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        Secret::from(key)
    }
}
