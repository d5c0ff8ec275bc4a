//! How many ingest streams are open, in all and by client: each has its place until its answer is dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::api::ApiError;

/// How many streams are open, in all and by client.
#[derive(Debug)]
pub(super) struct Streams {
    open: Mutex<HashMap<u64, usize>>,
    of_client_max: usize,
    max: usize,
}

impl Streams {
    pub(super) fn new(of_client_max: usize, max: usize) -> Arc<Self> {
        Arc::new(Streams { open: Mutex::default(), of_client_max, max })
    }

    /// One more stream of a client, until the answer is dropped.
    ///
    /// # Errors
    /// [`ApiError::TooManyStreams`], [`ApiError::TooManyStreamsOfClient`].
    pub(super) fn open(self: &Arc<Self>, client: u64) -> Result<OpenStream, ApiError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= self.max {
            return Err(ApiError::TooManyStreams { limit: self.max });
        }
        let of_client = open.entry(client).or_default();
        if *of_client >= self.of_client_max {
            return Err(ApiError::TooManyStreamsOfClient { limit: self.of_client_max });
        }
        *of_client += 1;
        Ok(OpenStream { streams: Arc::clone(self), client })
    }
}

/// A place among the streams.
#[derive(Debug)]
pub(super) struct OpenStream {
    streams: Arc<Streams>,
    client: u64,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_client) = open.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.remove(&self.client);
            }
        }
    }
}
