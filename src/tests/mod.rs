//! Tests of what comes from outside, across all folders. Production code never names this module.

mod fuzz;
