//! The fuzz tests' way to what agents keep.

use super::codec;
use crate::domain::AssignmentSet;

/// A difference, a status, managers.
pub(crate) fn ledger(bytes: &[u8]) {
    if let Some(diff) = codec::decode_diff(bytes) {
        let encoded = codec::encode_diff(&diff);
        assert_eq!(codec::decode_diff(&encoded), Some(diff.clone()));
        if let Ok(set) = AssignmentSet::default().absorb(diff.clone()) {
            drop(set.absorb(diff));
        }
    }
    if let Some((task, status)) = codec::decode_status(bytes) {
        let encoded = codec::encode_status(task, &status);
        assert_eq!(codec::decode_status(&encoded), Some((task, status)));
    }
    if let Some(managers) = codec::decode_managers(bytes) {
        let encoded = codec::encode_managers(&managers);
        assert_eq!(codec::decode_managers(&encoded), Some(managers));
    }
}
