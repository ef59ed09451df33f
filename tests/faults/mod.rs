//! What goes wrong around vcbuild: it is killed, disks are full or failing, files are damaged, inputs change
//! under its hands. Lost is allowed, wrong never.

mod damage;
mod disk;
mod inputs;
mod kill;
mod strace;
