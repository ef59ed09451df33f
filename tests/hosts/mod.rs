//! Shipping to real machines: sshd and containerd as Debian has them, in namespaces.

/// The same with both kinds of containerd.
macro_rules! with_both {
    ($($name:ident)*) => { $(mod $name {
        use crate::rig::Kind;

        #[test]
        fn containerd_1_6() {
            super::$name(Kind::Containerd);
        }

        #[test]
        fn containerd_2_1() {
            super::$name(Kind::Containerd2);
        }
    })* };
}

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

/// An image of one file, for all nodes.
const IMAGES: &str = r#"
[image.app]
base  = "scratch"
files = [{ from = "data", to = "/data" }]
tags  = ["registry.example/team/app:1.0"]
[import.nodes]
images = ["image.app"]
hosts  = "nodes"
"#;
