//! Addresses of repositories: which are on this machine, what must not stand in one, and where an address
//! that a repository names lies. Asks nobody.

/// Whether an address is a path on this machine: no scheme, no helper, and no `host:path`.
pub fn is_path(url: &str) -> bool {
    let scp = url.split_once(':').is_some_and(|(host, _)| !host.contains('/'));
    !url.contains("://") && !scp
}

/// Whether what an address names is on this machine.
pub fn is_here(url: &str) -> bool {
    is_path(url) || url.starts_with("file://")
}

/// Why an address is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is empty, looks like an option, or has control characters, also such as are written `%0a`.
    Form,
    /// It is one of those that run a command.
    Command,
    /// It holds a password, or a user name that is most likely a token.
    Secret,
}

/// A user name of at least this length in an address of the web is a token.
const TOKEN: usize = 20;

/// What is wrong with an address, if anything.
pub fn wrong(url: &str) -> Option<Wrong> {
    let hidden = url.to_ascii_lowercase();
    let control = url.chars().any(char::is_control)
        || (0..0x20_u8).any(|byte| hidden.contains(&format!("%{byte:02x}")));
    if url.is_empty() || url.starts_with('-') || control {
        return Some(Wrong::Form);
    }
    if ["ext::", "fd::"].iter().any(|helper| hidden.starts_with(helper)) {
        return Some(Wrong::Command);
    }
    let (scheme, rest) = url.split_once("://")?;
    let host = authority(rest);
    if host.is_empty() && scheme != "file" || host.starts_with('-') {
        return Some(Wrong::Form);
    }
    host.rsplit_once('@').filter(|(user, _)| is_secret(scheme, user)).map(|_| Wrong::Secret)
}

/// The part of an address between `://` and the path.
fn authority(rest: &str) -> &str {
    rest.split(|c: char| c.is_whitespace() || "/?#'\"`<>".contains(c)).next().unwrap_or_default()
}

fn is_secret(scheme: &str, user: &str) -> bool {
    user.contains(':') || (scheme.ends_with("http") || scheme.ends_with("https")) && user.len() >= TOKEN
}

/// A text in which the passwords and tokens of all addresses are `***`.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let host = authority(after);
        rest = after;
        if let Some((user, _)) = host.rsplit_once('@')
            && is_secret(&before[..at], user)
        {
            out.push_str("***");
            rest = &after[user.len()..];
        }
    }
    out + rest
}

/// The address of a submodule: `url` as the repository at `parent` names it. What begins with `./` or `../`
/// is relative to `parent`, as git has it; it may not leave the parent's host.
pub fn beside(parent: &str, url: &str) -> Result<String, Wrong> {
    if let Some(wrong) = wrong(url) {
        return Err(wrong);
    }
    if !url.starts_with("./") && !url.starts_with("../") {
        return if is_path(url) && !url.starts_with('/') { Err(Wrong::Form) } else { Ok(url.to_string()) };
    }
    let parent = parent.trim_end_matches('/');
    // What stays whatever is cut off.
    let host = match parent.split_once("://") {
        Some((scheme, rest)) => scheme.len() + 3 + authority(rest).len(),
        None if is_path(parent) => 0,
        None => parent.find(':').map_or(0, |at| at + 1),
    };
    let (host, path) = parent.split_at(host);
    let mut names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for name in url.split('/').filter(|name| !name.is_empty() && *name != ".") {
        match name {
            ".." if names.pop().is_none() => return Err(Wrong::Form),
            ".." => {}
            name => names.push(name),
        }
    }
    let slash = if path.starts_with('/') { "/" } else { "" };
    Ok(format!("{host}{slash}{}", names.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses() {
        for url in ["/a/b", "a", "../a:b", "./a:b/c", "a.bundle"] {
            assert!(is_path(url), "{url}");
        }
        for url in ["host:a", "git@host:a/b", "https://host/a", "file:///a", "helper::a", "ext::sh -c x"] {
            assert!(!is_path(url), "{url}");
        }
        assert!(is_here("file:///a") && is_here("a") && !is_here("https://host/a"));
    }

    #[test]
    fn what_is_not_taken() {
        for (url, expected) in [
            ("", Wrong::Form),
            ("-uevil", Wrong::Form),
            ("a\rb", Wrong::Form),
            ("https://host/%0aevil", Wrong::Form),
            ("https:///path", Wrong::Form),
            ("ssh://-oProxyCommand=x/y", Wrong::Form),
            ("ext::sh -c x", Wrong::Command),
            ("EXT::sh -c x", Wrong::Command),
            ("fd::17", Wrong::Command),
            ("https://user:word@host/x", Wrong::Secret),
            ("https://:word@host/x", Wrong::Secret),
            ("https://ghp_0123456789abcdefghij@host/x", Wrong::Secret),
            ("https://a@b:word@host/x", Wrong::Secret),
            ("ssh://user:word@host/x", Wrong::Secret),
        ] {
            assert_eq!(wrong(url), Some(expected), "{url}");
        }
        for url in ["https://user@host/x", "ssh://git@host:22/x", "git@host:x", "file:///x", "/a:b@c", "x"]
        {
            assert_eq!(wrong(url), None, "{url}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(
            shown("a 'https://u:p@h/x' b https://user@h/y ssh://git:x@h c://"),
            "a 'https://***@h/x' b https://user@h/y ssh://***@h c://"
        );
        assert_eq!(shown("fatal: https://ghp_0123456789abcdefghij@h/x: no"), "fatal: https://***@h/x: no");
        assert_eq!(shown("nothing"), "nothing");
    }

    #[test]
    fn submodules_as_git_has_them() {
        for (parent, url, expected) in [
            ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
            ("https://h/a/b.git/", "../../c", "https://h/c"),
            ("https://h/a/b", "./c", "https://h/a/b/c"),
            ("git@h:a/b", "../c", "git@h:a/c"),
            ("git@h:a/b", "../../c", "git@h:c"),
            ("git@h:/a/b", "../c", "git@h:/a/c"),
            ("/srv/a", "../b", "/srv/b"),
            ("file:///srv/a", "../b", "file:///srv/b"),
            ("https://h/a", "https://i/b", "https://i/b"),
            ("https://h/a", "/b", "/b"),
        ] {
            assert_eq!(beside(parent, url).as_deref(), Ok(expected), "{parent} {url}");
        }
        for (parent, url) in [
            ("https://h/a", "../../b"),
            ("https://h/a", "../../../evil/b"),
            ("git@h:a", "../../b"),
            ("/a", "../../b"),
            ("https://h/a", "b"),
            ("https://h/a", "-ub"),
            ("https://h/a", "../b\r"),
            ("https://h/a", ""),
        ] {
            assert_eq!(beside(parent, url), Err(Wrong::Form), "{parent} {url}");
        }
        assert_eq!(beside("https://h/a", "ext::sh -c x"), Err(Wrong::Command));
        assert_eq!(beside("https://h/a", "https://u:p@h/a"), Err(Wrong::Secret));
    }
}
