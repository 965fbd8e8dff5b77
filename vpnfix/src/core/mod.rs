//! The pure part: no I/O, no clock, no kernel. Everything comes in as a value and goes out as one.

pub mod decode;
pub mod model;
pub mod observation;
