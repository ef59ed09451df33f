//! Shipping to real machines: sshd and containerd as Debian has them, in namespaces.

mod bases;
mod builder;
mod connect;
mod files;
mod folders;
mod images;
mod secrets;
mod wire;
