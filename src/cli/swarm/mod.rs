//! The cluster itself: making, joining and leaving it, its tokens and settings.

pub(crate) mod admin;
pub(crate) mod authority;
mod backups;
pub(crate) mod enter;
pub(crate) mod policy;
pub(crate) mod recovery;
pub(crate) mod start;
