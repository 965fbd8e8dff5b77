//! What changes the system, and what guards it.

pub mod apply;
pub mod files;
pub mod lock;
pub mod persist;
