//! The composition root: puts everything together.
