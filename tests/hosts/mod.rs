//! Shipping to real machines: sshd and containerd as Debian has them, in namespaces.

mod bases;
mod connect;
mod files;
mod images;
