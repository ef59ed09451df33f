//! Shipping to real machines: sshd and containerd as Debian has them, in namespaces.

mod bases;
mod builder;
mod chain;
mod connect;
mod doctor;
mod faults;
mod files;
mod folders;
mod images;
mod names;
mod secrets;
mod splices;
mod wire;
