//! Whatever is encoded is decoded to the same, and no bytes make the decoder panic.

mod any;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::domain::assignment::AssignmentDiff;
use any::{change, diff, object, rejection};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn changes_survive(change in change()) {
        prop_assert_eq!(decode_change(&encode_change(&change)), Ok(change));
    }

    #[test]
    fn objects_survive(object in object()) {
        prop_assert_eq!(decode_object(&encode_object(&object)), Ok(object));
    }

    #[test]
    fn differences_survive(diff in diff()) {
        let bytes = types::AssignmentDiff::from(&diff).encode_to_vec();
        let message = types::AssignmentDiff::decode(&*bytes).unwrap();
        prop_assert_eq!(AssignmentDiff::try_from(message), Ok(diff));
    }

    #[test]
    fn rejections_survive(rejection in rejection()) {
        let bytes = types::Rejection::from(&rejection).encode_to_vec();
        let message = types::Rejection::decode(&*bytes).unwrap();
        prop_assert_eq!(Rejection::from(message), rejection);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in any::<Vec<u8>>()) {
        if let Ok(change) = decode_change(&bytes) {
            prop_assert_eq!(decode_change(&encode_change(&change)), Ok(change));
        }
        if let Ok(object) = decode_object(&bytes) {
            prop_assert_eq!(decode_object(&encode_object(&object)), Ok(object));
        }
    }

    #[test]
    fn no_damage_makes_the_decoder_panic(
        change in change(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode_change(&change);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(change) = decode_change(&bytes) {
            prop_assert_eq!(decode_change(&encode_change(&change)), Ok(change));
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let change = types::Change {
        kind: Some(types::change::Kind::JoinManager(types::JoinManager {
            node: vec![1, 2, 3].into(),
            addr: String::new(),
        })),
    };
    let text = decode_change(&change.encode_to_vec()).unwrap_err().to_string();
    assert_eq!(text, "field node of a message is wrong: an id has 16 bytes, not 3");
    assert!(decode_change(&[]).unwrap_err().to_string().contains("change.kind"));
    let known: BTreeMap<_, _> = KINDS.iter().map(|kind| (*kind, kind_named(kind))).collect();
    assert!(known.iter().all(|(name, kind)| name == kind));
    assert_eq!(kind_named("volume"), "object");
}
