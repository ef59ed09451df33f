//! Machines as images name them: operating system and architecture (image-spec, "image index").

/// The machine that this runs on.
pub fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        "riscv64" => "linux/riscv64",
        "powerpc64" => "linux/ppc64le",
        "s390x" => "linux/s390x",
        other => other,
    }
}

/// One whose `uname -m` says this.
pub fn named(machine: &str) -> String {
    let name = match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        "armv7l" => "arm/v7",
        "armv6l" => "arm/v6",
        other => other,
    };
    format!("linux/{name}")
}
