//! Who one is: certificates, join tokens, TLS.
