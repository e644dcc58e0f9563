//! Power cuts, failing disks and damage, for real: processes of the production code on a file system
//! of ours that loses what was not synced, and on directories that somebody damaged.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says how much it tried"
)]

mod chance;
mod child;
mod cuts;
mod failures;
mod mount;
mod mutations;
mod platter;
mod process;
