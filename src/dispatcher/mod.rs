//! A manager's side of the agent protocol; runs on every manager, reads the local view.
