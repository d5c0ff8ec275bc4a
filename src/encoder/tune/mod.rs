//! Tuning measures once on a machine which settings are fast, and whether a model's 8 bits are accurate enough.

pub mod arithmetic;
pub mod calibrate;
pub mod fidelity;
pub mod tuned;
