//! The pure part: no I/O, no clock, no kernel. Everything comes in as a value and goes out as one. The modules in the
//! order of the data: what the kernel was seen doing, what the host is, what is wrong with it, what to do, whether it
//! worked, how it is told.

pub mod decode;
pub mod observation;

pub mod model;

pub mod destination;
pub mod tunnel;
pub mod walk;

pub mod control;
pub mod finding;
pub mod judge;
pub mod live;
pub mod origin;
pub mod owner;
pub mod predict;
pub mod sample;
pub mod strongswan;

pub mod journal;
pub mod persist;
pub mod plan;
pub mod proof;

pub mod explain;

pub mod confirm;

pub mod own_file;
pub mod verify;

pub mod config;
pub mod filter;
pub mod flows;
pub mod watch;

pub mod report;
pub mod story;

pub mod packets;
pub mod recording;
pub mod telling;

pub mod bundle;
pub mod redact;

#[cfg(test)]
pub(crate) mod fixture;
