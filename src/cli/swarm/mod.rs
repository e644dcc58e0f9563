//! The cluster itself: making, joining and leaving it, its tokens and settings.

pub(crate) mod admin;
mod backups;
pub(crate) mod authority;
pub(crate) mod enter;
pub(crate) mod policy;
pub(crate) mod recovery;
pub(crate) mod start;
