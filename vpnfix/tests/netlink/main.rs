//! The netlink and host adapters against the kernel, in network namespaces of their own, with `ip` as the independent
//! reader. Needs root; without it each test prints `SKIP: why`, which fails where `CI` is set.

mod host;
mod large;
mod links;
mod queries;
mod routes;
mod rules;
mod scene;
