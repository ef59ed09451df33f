//! Repositories to be cloned, made by the real git, without anybody's configuration.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with a working folder.
pub struct Repository {
    path: PathBuf,
}

impl Repository {
    /// An empty one, on the branch `main`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(&path).unwrap();
        let repository = Self { path };
        repository.git("init -q -b main");
        repository
    }

    /// One with a commit of these files; returns it too.
    pub fn with(path: impl Into<PathBuf>, files: &[(&str, &str)]) -> (Self, String) {
        let repository = Self::new(path);
        let commit = repository.commit("first", files);
        (repository, commit)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs git in it, with arguments separated by spaces; returns what it prints.
    pub fn git(&self, arguments: &str) -> String {
        self.git_list(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs git in it.
    pub fn git_list(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@example.com");
            command.env(format!("GIT_{who}_DATE"), "2020-01-01T00:00:00Z");
        }
        let output = command
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(&self.path)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }

    /// Writes a file; one that ends in `*` may be executed.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let (name, mode) = name.strip_suffix('*').map_or((name, 0o644), |name| (name, 0o755));
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a link.
    pub fn link(&self, name: &str, target: &str) {
        symlink(target, self.path.join(name)).unwrap();
    }

    /// Writes files and commits everything; returns the commit.
    pub fn commit(&self, words: &str, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            self.write(name, content);
        }
        self.git("add -A");
        self.git_list(&["commit", "-q", "--allow-empty", "-m", words]);
        self.git("rev-parse HEAD")
    }
}

/// Bytes that cannot be compressed, always the same.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
