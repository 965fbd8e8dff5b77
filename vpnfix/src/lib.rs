//! vpnfix sees a route-based VPN's traffic leave the wrong way, repairs it with policy rules, and proves on live
//! packets that it now leaves by the tunnel.
//!
//! The modules stand in the order of the data's path: kernel event, decoding, observation, verdict, evidence, plan,
//! application, confirmation, report.

pub mod commands;
pub mod core;
pub mod system;
