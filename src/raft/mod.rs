//! Consensus: the replicated store. The only folder that names openraft and bincode.
//!
//! Everybody else knows only [`Store`]: read a [`View`], propose [`Change`]s, wait for what others
//! proposed, ask who leads.

mod memory;
mod store;

pub use store::{Leadership, ProposeError, ReadError, Store};
