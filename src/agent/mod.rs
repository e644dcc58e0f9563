//! The worker's side: acts from its ledger.
