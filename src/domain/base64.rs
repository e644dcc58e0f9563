//! Base 64 as Go's JSON writes and reads bytes (standard alphabet, padded), with Go's error text. Unlock
//! keys are spelt in it, too.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Text of bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                let digit = usize::try_from(group >> (18 - 6 * place) & 63).unwrap_or_default();
                text.push(char::from(ALPHABET[digit]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn digit(byte: u8) -> Option<u32> {
    ALPHABET.iter().position(|known| *known == byte).and_then(|at| u32::try_from(at).ok())
}

/// Bytes of a text; line breaks in it are skipped.
///
/// # Errors
/// Go's text, with the offset of the first byte that does not fit.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let wrong = |at: usize| format!("illegal base64 data at input byte {at}");
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut digits, mut padding) = (0u32, 0u32, 0u32);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => continue,
            b'=' if digits + padding >= 2 && digits + padding < 4 => padding += 1,
            _ if padding > 0 => return Err(wrong(at)),
            _ => {
                group = group << 6 | digit(byte).ok_or_else(|| wrong(at))?;
                digits += 1;
            }
        }
        if digits + padding == 4 && (digits == 4 || padding > 0) {
            let whole = group << (6 * padding);
            let take = usize::try_from(3 - padding).unwrap_or_default();
            bytes.extend_from_slice(&whole.to_be_bytes()[1..=take]);
            if padding == 0 {
                (group, digits) = (0, 0);
            }
        }
    }
    match (digits, padding) {
        (0, 0) => Ok(bytes),
        (3, 1) | (2, 2) => Ok(bytes),
        _ => Err(wrong(text.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded), Ok(plain.as_bytes().to_vec()));
        }
        assert_eq!(decode("Zm9v\r\nYmFy"), Ok(b"foobar".to_vec()));
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place() {
        assert_eq!(decode("Zm9*"), Err("illegal base64 data at input byte 3".to_owned()));
        for wrong in ["Z", "Zg", "Zg=", "Zg==Z", "====", "Z===", "Zm9v="] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }
}
