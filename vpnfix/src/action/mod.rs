//! What changes the system, and what guards it.

pub mod apply;
pub mod audit;
pub mod bundle;
pub mod files;
pub mod hold;
pub mod incidents;
pub mod journal;
pub mod lock;
pub mod persist;
pub mod restart;
