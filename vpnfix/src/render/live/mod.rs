//! The live view: what is on the screen ([`board`]), how keys change it ([`screen`]), and how it is drawn ([`draw`]). No
//! terminal is touched here, so that all of it can be tested.

pub mod board;
pub mod draw;
pub mod screen;

pub use board::{Board, Glance, SessionRow, TunnelRow};
pub use screen::{Command, Key, Screen};

#[cfg(test)]
mod tests;
