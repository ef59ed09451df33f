//! Shipping to real machines: sshd and containerd as Debian has them, in namespaces.

mod chain;
mod connect;
mod doctor;
mod faults;
mod files;
mod images;
mod names;
mod splices;
