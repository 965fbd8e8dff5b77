//! What changes the system, and what guards it.

pub mod apply;
pub mod audit;
pub mod journal;
pub mod lock;
