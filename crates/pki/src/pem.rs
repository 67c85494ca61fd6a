//! PEM (RFC 7468): files with certificates, keys or revocation lists, and anything else between.

use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block: what it says it is, and its contents.
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Every certificate in a file, in order.
pub(crate) fn certificates(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let blocks = blocks(file)?;
    let certificates = blocks.iter().filter(|block| block.label == "CERTIFICATE");
    Ok(certificates.map(|block| block.der.to_vec()).collect())
}

/// Every revocation list in a file, in order; a file that is not PEM is one list in DER.
pub(crate) fn revocation_lists(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    if !file.starts_with(BEGIN.as_bytes()) && file.first() == Some(&super::der::SEQUENCE) {
        return Ok(vec![file.to_vec()]);
    }
    let blocks = blocks(file)?;
    let lists = blocks.iter().filter(|block| block.label == "X509 CRL");
    Ok(lists.map(|block| block.der.to_vec()).collect())
}

/// All blocks of a file. What an encrypted key's block has in front of its data is an error.
pub(crate) fn blocks(file: &[u8]) -> Result<Vec<Block>, String> {
    // Comments beside the blocks may be in any encoding.
    let mut found = Vec::new();
    let mut rest = file;
    while let Some(begin) = find(rest, BEGIN) {
        let Some(length) = find(&rest[begin..], END) else {
            return Err("a PEM block has no end".to_owned());
        };
        let end_line = begin + length + END.len();
        let Some(dashes) = find(&rest[end_line..], DASHES) else {
            return Err("a PEM block has no end".to_owned());
        };
        let stop = end_line + dashes + DASHES.len();
        let block = &rest[begin..stop];
        if find(block, "ENCRYPTED").is_some() {
            return Err(
                "it is encrypted, and nobody could type its passphrase: decrypt it (openssl pkey)"
                    .to_owned(),
            );
        }
        let mut der = Zeroizing::new(vec![0; block.len()]);
        let (label, length) = {
            let (label, der) = pem_rfc7468::decode(block, &mut der)
                .map_err(|error| format!("a PEM block is malformed: {error}"))?;
            (label.to_owned(), der.len())
        };
        der.truncate(length);
        found.push(Block { label, der });
        rest = &rest[stop..];
    }
    Ok(found)
}

fn find(text: &[u8], what: &str) -> Option<usize> {
    text.windows(what.len())
        .position(|window| window == what.as_bytes())
}
