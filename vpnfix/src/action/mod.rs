//! What changes the system, and what guards it.

pub mod lock;
