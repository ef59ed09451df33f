//! What is written of images, and what is said about them: other people's programs read every form.

mod forms;
mod lints;
mod sbom;
mod tools;
