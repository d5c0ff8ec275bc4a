//! The built command line, as a user meets it: arguments in, stdout, stderr and an exit code out.
//!
//! Needs ONNX Runtime under `DISTILFACE_HOME` (see `distilface setup`) for everything that touches a database;
//! those tests say that they were skipped where it is absent, and fail in CI.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail there")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod backup;
mod config;
mod documents;
mod eval;
mod finetune;
mod folders;
mod harness;
#[expect(dead_code, reason = "the unit tests of the pull use the rest")]
#[path = "../../src/hub/pull/tests/hub.rs"]
mod hub;
mod ingest;
mod model;
mod optimise;
mod quantise;
mod repair;
mod search;
mod serve;
mod usage;
