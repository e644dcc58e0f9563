//! Text for people and scripts: tables, Go templates, sizes, times.

pub(crate) mod eval;
pub(crate) mod json;
pub(crate) mod rows;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod units;
