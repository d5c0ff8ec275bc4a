//! What is measured once on a machine, so that the encoder is fast on it and its 8 bits are near enough.

pub mod arithmetic;
pub mod calibrate;
pub mod nearness;
pub mod tuned;
