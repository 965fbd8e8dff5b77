//! One module a command: read what was asked, call the parts in the order of the data, hand on the result.

pub mod lab;
