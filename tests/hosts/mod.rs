//! Shipping to real machines: sshd and containerd as Debian has them, in namespaces.

mod connect;
mod doctor;
mod files;
mod images;
mod names;
mod splices;
