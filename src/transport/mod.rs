//! gRPC over mutual TLS.
