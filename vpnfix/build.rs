//! Builds the eBPF object that is embedded in the binary.
fn main() {}
