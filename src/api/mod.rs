//! The Docker Engine API for swarm mode.
