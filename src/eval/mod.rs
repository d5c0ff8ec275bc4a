//! How good: retrieval measures and parity with reference values.
