//! What the requests of all doors are held to together: how many are worked on, and what they hold in memory.
//!
//! A request is weighed before anything of it is decoded: by its length while it comes in ([`Limits::reserved_bytes`]), and
//! by its parts when it is here as a whole ([`Limits::weigh`]). When and how it comes in is the door's to follow.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use super::shape::Method;
use super::{
    ApiError,
    shape::{Misshapen, Schema},
};
use crate::{
    budget::{Budget, Room},
    config::LimitsConfig,
    engine::EngineError,
};

/// A decoded message may take this many times the bytes that a message may have on the wire.
const DECODED_FACTOR: usize = 4;
/// What a message is reserved for its length: once here, once in the decoder's buffer, once decoded.
const READ_FACTOR: usize = 3;
/// And where it is encoded and stored: its passages, their vectors, and the records of the store besides.
const WRITE_FACTOR: usize = 6;

/// The smallest budget in which every message that the limits allow finds room when it is alone.
const fn budget_least(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_mul(WRITE_FACTOR + DECODED_FACTOR)
}

/// What every request is held to. All doors of a process share one.
#[derive(Debug)]
pub(crate) struct Limits {
    schema: Schema,
    /// Memory of requests and their answers.
    pub(crate) budget: Arc<Budget>,
    /// One for each request that is worked on.
    pub(crate) permits: Arc<Semaphore>,
    concurrent_max: usize,
    /// The most bytes that a request or an answer may have.
    pub(crate) message_bytes_max: usize,
}

impl Limits {
    /// As the settings say; the budget is at least what one message of the largest size needs.
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        let budget_bytes = limits.bytes_in_flight_max.max(budget_least(limits.message_bytes_max));
        Limits {
            schema: Schema::new(),
            budget: Budget::new(budget_bytes),
            permits: Arc::new(Semaphore::new(limits.concurrent_requests_max)),
            concurrent_max: limits.concurrent_requests_max,
            message_bytes_max: limits.message_bytes_max,
        }
    }

    /// The method of a name such as `Documents/Get`.
    pub(crate) fn method(&self, name: &str) -> Option<&Method> {
        self.schema.method(name)
    }

    /// Room for one answer.
    pub(crate) fn room(&self) -> Arc<Room> {
        Room::new(self.message_bytes_max, &self.budget)
    }

    /// Refuses a call that would find no permit now.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`].
    pub(crate) fn check_free(&self) -> Result<(), ApiError> {
        match self.permits.available_permits() {
            0 => Err(self.too_many()),
            _ => Ok(()),
        }
    }

    /// A call that is here as a whole takes its turn, or is refused. Held, the permit makes it one of those worked on.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`].
    pub(crate) fn begin(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| self.too_many())
    }

    /// A message of a stream waits for its turn among the requests.
    ///
    /// # Errors
    /// [`EngineError::Closing`].
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Ok(Arc::clone(&self.permits).acquire_owned().await.map_err(|_| EngineError::Closing)?)
    }

    fn too_many(&self) -> ApiError {
        ApiError::TooManyRequests { limit: self.concurrent_max }
    }

    /// The memory to reserve for so many bytes of a request of `method`, before it is known what is in them.
    pub(crate) fn reserved_bytes(&self, method: &Method, bytes: usize) -> usize {
        bytes * if method.writes { WRITE_FACTOR } else { READ_FACTOR }
    }

    /// Refuses a message by its length.
    ///
    /// # Errors
    /// [`ApiError::MessageTooLarge`].
    pub(crate) fn check_length(&self, bytes: usize) -> Result<(), ApiError> {
        let limit = self.message_bytes_max;
        if bytes > limit {
            return Err(ApiError::MessageTooLarge { limit });
        }
        Ok(())
    }

    /// The memory that a message in `bytes` takes once it is decoded, beyond its length.
    ///
    /// # Errors
    /// [`ApiError::Malformed`], [`ApiError::TooManyParts`].
    pub(crate) fn weigh(&self, method: &Method, bytes: &[u8]) -> Result<usize, ApiError> {
        let limit = self.message_bytes_max.saturating_mul(DECODED_FACTOR);
        let decoded = self.schema.decoded_bytes(method, bytes, limit);
        let decoded = decoded.map_err(|misshapen| match misshapen {
            Misshapen::Malformed(reason) => ApiError::Malformed { reason },
            Misshapen::TooMuch => ApiError::TooManyParts { limit },
        })?;
        Ok(decoded.saturating_sub(bytes.len()))
    }
}
