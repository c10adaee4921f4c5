//! A real Kubernetes control plane on one machine, with the one thing kwok leaves out: the pods' processes.
//!
//! [`Tools`] builds the pinned Kubernetes programs once into a cache. [`Cluster`] starts etcd, the API server, the
//! controller manager, the scheduler and kwok in a folder of its own, plays the kubelet and kube-proxy for the pods
//! under test, and leaves nothing behind: when it is dropped, and also when the test that owns it is killed.
//! [`Release`] installs the chart into it, as a user would.
//!
//! All methods block and may be called from any thread, inside an async test too: the work is done on threads of
//! the cluster's own. A [`kube::Client`] that comes from here may be used from any runtime for the same reason.

mod addresses;
pub mod audit;
mod background;
mod cluster;
mod control_plane;
mod guardian;
mod kubelet;
mod pki;
mod process;
mod product;
pub mod prometheus;
mod proxy;
mod release;
pub mod tools;
pub mod wait;

pub use cluster::{Cluster, NodeOptions, Options};
pub use kubelet::{Image, ImageFile};
pub use nix::sys::signal::Signal;
pub use product::{Product, cargo, stand_in, write_program};
pub use prometheus::Prometheus;
pub use release::Release;
pub use tools::{Tool, Tools};
