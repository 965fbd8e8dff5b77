//! What the scenes share.
