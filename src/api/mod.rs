//! The methods of `proto/distilface/v1`: one function for each, which turns a [`Context`] and a request into a response.
//!
//! Every door (gRPC is one) makes the context, lets it call the method ([`Context::call`]), and says in its own words what
//! an [`ApiError`] means. So whatever a method does, how long it may take, how much it may answer and what all requests
//! may hold together ([`Limits`]) is the same behind every door.
//! Leaves out the wire: connections, bodies, streams of clients and codes belong to the door.

pub(crate) mod backups;
pub(crate) mod collections;
mod context;
pub(crate) mod convert;
pub(crate) mod documents;
pub(crate) mod encoder;
mod error;
pub(crate) mod ingest;
mod limits;
pub(crate) mod search;
mod shape;
mod zero;

pub(crate) use self::{
    context::{Context, Counts},
    error::{ApiError, log_if_ours},
    limits::{Limits, Method},
};
