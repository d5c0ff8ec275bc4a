//! What a client sees: a real server on a free port, the generated client, the tiny model, a folder of its own.
//!
//! One file per topic, one sentence per test. Nothing sleeps: what takes time is polled until it is so.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod ceiling;
mod collections;
mod damage;
mod deadlines;
mod documents;
mod durability;
mod encoder;
mod ending;
mod harness;
mod health;
mod ingest;
mod limits;
mod memory;
mod once;
mod restart;
mod search;
mod streams;
mod versions;
