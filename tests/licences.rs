//! What the crate is built from: every licence is one that Apache-2.0 can be shipped with, and crates that
//! bring a second TLS or a C library of their own stay out.

use std::process::Command;

use serde_json::Value;

const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const BANNED: [&str; 5] = ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

/// Whether an SPDX expression can be met: one side of each `OR`, all sides of each `AND`.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let outer = |word: &str| -> Option<Vec<String>> {
        let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
        for token in expression.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
            depth += i32::from(token == "(") - i32::from(token == ")");
            match depth == 0 && token == word {
                true => parts.push(std::mem::take(&mut part)),
                false => part = format!("{part} {token}"),
            }
        }
        parts.push(part);
        (parts.len() > 1).then_some(parts)
    };
    if let Some(parts) = outer("OR") {
        return parts.iter().any(|part| allowed(part));
    }
    if let Some(parts) = outer("AND") {
        return parts.iter().all(|part| allowed(part));
    }
    let one = expression.trim();
    match one.strip_prefix('(').and_then(|one| one.strip_suffix(')')) {
        Some(inside) => allowed(inside),
        None => ALLOWED.contains(&one),
    }
}

#[test]
fn expressions_are_understood() {
    for fine in [
        "MIT",
        "MIT OR GPL-3.0",
        "MIT/Apache-2.0",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "GPL-2.0 OR (ISC AND MIT)",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(allowed(fine), "{fine}");
    }
    for wrong in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-2.0 OR MPL-2.0) AND MIT", ""] {
        assert!(!allowed(wrong), "{wrong}");
    }
}

#[test]
fn all_crates_may_be_shipped() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let used: Vec<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for package in packages.iter().filter(|package| used.contains(&package["id"].as_str().unwrap())) {
        looked_at += 1;
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        if !allowed(licence) {
            wrong.push(format!("`{name}` has the licence `{licence}`"));
        }
        if BANNED.contains(&name) {
            wrong.push(format!("`{name}` is not wanted"));
        }
    }
    assert!(looked_at > 50, "only {looked_at} crates were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
