//! Values of flags, in Docker's syntax and with Docker's errors.

pub(crate) mod csv;
pub(crate) mod env;
pub(crate) mod files;
pub(crate) mod mount;
pub(crate) mod number;
pub(crate) mod place;
pub(crate) mod port;
pub(crate) mod words;
