//! What an adapter could not read, as the core takes it in.

use std::error::Error;

use crate::core::verify::{Known, NotKnown};

/// A result of an adapter: an error becomes the reason, with its causes.
pub(super) fn known<T>(result: Result<T, impl Error + 'static>) -> Known<T> {
    result.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        NotKnown(text)
    })
}
