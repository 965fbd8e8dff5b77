//! The pure part: no I/O, no clock, no kernel. Everything comes in as a value and goes out as one.

pub mod confirm;
pub mod control;
pub mod destination;
pub mod finding;
pub mod judge;
pub mod live;
pub mod model;
pub mod observation;
pub mod owner;
pub mod plan;
pub mod report;
pub mod story;
pub mod tunnel;
pub mod walk;
