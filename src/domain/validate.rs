//! Whether a user's spec makes sense: names, ranges, combinations. Every refusal names the field.

/// A field of a request that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: {reason}")]
pub struct InvalidField {
    /// The field, as the API spells it (`TaskTemplate.ContainerSpec.Image`).
    pub field: String,
    /// What is wrong and what is expected.
    pub reason: String,
}
