//! Names of services and tasks.
