//! Rows about algorithms: the peer proposes and takes nothing else.

use super::first::establish;
use crate::interop::{Algorithms, Cell, Outcome, Suite};

const AES_CBC: Suite = Suite {
    strongswan_ike: "aes256-sha256-modp2048",
    strongswan_esp: "aes256-sha256-modp2048",
    libreswan_ike: "aes256-sha2_256-dh14",
    libreswan_esp: "aes256-sha2_256",
};
const CHACHA20: Suite = Suite {
    strongswan_ike: "chacha20poly1305-prfsha256-ecp256",
    strongswan_esp: "chacha20poly1305-ecp256",
    libreswan_ike: "chacha20_poly1305-sha2_256-dh19",
    libreswan_esp: "chacha20_poly1305",
};
const AES_128_P384: Suite = Suite {
    strongswan_ike: "aes128gcm16-prfsha384-ecp384",
    strongswan_esp: "aes128gcm16-ecp384",
    libreswan_ike: "aes_gcm128-sha2_512-dh20",
    libreswan_esp: "aes_gcm128",
};
const AES_512_P521: Suite = Suite {
    strongswan_ike: "aes256-sha512-ecp521",
    strongswan_esp: "aes256-sha512-ecp521",
    libreswan_ike: "aes256-sha2_512-dh21",
    libreswan_esp: "aes256-sha2_512",
};
const MODP_3072: Suite = Suite {
    strongswan_ike: "aes128-sha256-modp3072",
    strongswan_esp: "aes128-sha256-modp3072",
    libreswan_ike: "aes128-sha2_256-dh15",
    libreswan_esp: "aes128-sha2_256",
};

/// AES-256-CBC, HMAC-SHA-256, group 14.
pub(super) fn aes_cbc(cell: Cell) -> Outcome {
    establish(cell, |it| it.algorithms = Algorithms::Only(&AES_CBC))
}

/// ChaCha20-Poly1305, group 19.
pub(super) fn chacha20(cell: Cell) -> Outcome {
    establish(cell, |it| it.algorithms = Algorithms::Only(&CHACHA20))
}

/// AES-128-GCM, group 20.
pub(super) fn p384(cell: Cell) -> Outcome {
    establish(cell, |it| it.algorithms = Algorithms::Only(&AES_128_P384))
}

/// AES-256-CBC, HMAC-SHA-512, group 21.
pub(super) fn p521(cell: Cell) -> Outcome {
    establish(cell, |it| it.algorithms = Algorithms::Only(&AES_512_P521))
}

/// AES-128-CBC, HMAC-SHA-256, group 15.
pub(super) fn modp3072(cell: Cell) -> Outcome {
    establish(cell, |it| it.algorithms = Algorithms::Only(&MODP_3072))
}

/// ML-KEM-768 beside another group (RFC 9370): no peer that is packaged has it.
pub(super) fn ml_kem(_: Cell) -> Outcome {
    Outcome::NotTried("the packaged peer has no ML-KEM")
}
