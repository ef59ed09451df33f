//! What a host has to compile with, asked at once: its platform, the content of programs and files, the
//! installed versions of packages, what programs say of their version. Changes nothing, and knows no task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node::Remote;
use super::talk::Talk;
use super::wrapper::quote;
use crate::digest::Digest;
use crate::error::Failure;
use crate::host::machine;
use crate::host::node::Trouble;

/// Takes the length of its orders on one line, then the orders: calls of the functions in it.
///
/// Variables of the environment come by way of a pipe: what stands on a command line, everybody there can read.
const ASK: &str = r#"
run='eval "$(cat <&3)"; exec 3<&-; unset PWD OLDPWD SHLVL; exec "$@"'
text() { printf '%s %s\n' "$1" "$(printf %s "$2" | wc -c)"; printf %s "$2"; }
find_tool() {
  at=
  case $1 in
  */*) if [ -f "$1" ] && [ -x "$1" ]; then at=$1; fi ;;
  *)
    IFS=:
    for d in $PATH; do
      case $d in
      /*) if [ -f "$d/$1" ] && [ -x "$d/$1" ]; then at=$d/$1; break; fi ;;
      esac
    done
    unset IFS
    ;;
  esac
}
digest() { h=$(sha256sum -b <"$1") || h=-; printf %s "${h%% *}"; }
tool() {
  find_tool "$1"
  if [ -n "$at" ]; then printf 'tool %s %s\n' "$(digest "$at")" "$at"; else echo 'tool - -'; fi
}
reads() { if [ -f "$1" ]; then printf 'read %s -\n' "$(digest "$1")"; else echo 'read - -'; fi; }
packages() {
  f=/var/lib/dpkg/status
  [ -r $f ] || { echo 'none 0'; return; }
  text packages "$(awk -v names=" $* " '
    /^Package: / { on = index(names, " " $2 " ") > 0 }
    on && /^(Package|Status|Architecture|Version): /
    on && $0 == "" { print "" }' $f)"
}
version() {
  env=$1
  find_tool "$2"
  shift 2
  out=$(printf '%s\n' "$env" | { exec timeout -k 5 60 env -i /bin/sh -c "$run" vcbuild "$at" "$@" 3<&0 </dev/null; }; echo "x$?")
  text "said ${out##*x}" "${out%x*}"
}
IFS= read -r n || exit 1
printf 'machine %s\npath %s\n' "$(uname -m)" "$PATH"
eval "$(head -c "$n")"
"#;

/// All that is asked of a host at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Programs, by name or by absolute path.
    pub tools: Vec<String>,
    /// Files, by absolute path.
    pub reads: Vec<String>,
    /// Debian packages.
    pub packages: Vec<String>,
    /// Programs, as in `tools`, with the arguments to call them with.
    pub versions: Vec<Vec<String>>,
    /// Variables that those calls get.
    pub env: BTreeMap<String, String>,
}

/// What a host says, in the order of the question.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// The machine, as images name it.
    pub platform: String,
    /// Where programs are looked for there.
    #[serde(skip)]
    pub path: String,
    /// Where programs are, with their content by SHA-256; nothing is not there.
    pub tools: Vec<Option<(String, Digest)>>,
    /// Files by SHA-256; nothing is not there, or cannot be read.
    pub reads: Vec<Option<Digest>>,
    /// What dpkg's list has of the packages; nothing is a host without such a list.
    pub packages: Option<String>,
    /// What programs say.
    pub versions: Vec<String>,
}

/// Whether a text can be the name of a variable there: a shell sets it.
pub fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(plain) && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// Variables as orders to a shell.
pub fn exports<'a>(env: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let line = |(name, value): (&String, &String)| format!("{name}={}\nexport {name}\n", quote(value));
    env.into_iter().map(line).collect()
}

impl Question {
    fn orders(&self) -> String {
        let mut orders = String::new();
        let mut call = |words: &[&str]| {
            orders.push_str(&words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "));
            orders.push('\n');
        };
        for tool in &self.tools {
            call(&["tool", tool]);
        }
        for path in &self.reads {
            call(&["reads", path]);
        }
        if !self.packages.is_empty() {
            let names = self.packages.iter().map(String::as_str);
            call(&["packages"].into_iter().chain(names).collect::<Vec<_>>());
        }
        let fixed = [("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent")];
        let mut env: BTreeMap<String, String> =
            fixed.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        env.extend(self.env.clone());
        let env = exports(&env);
        for argv in &self.versions {
            let words = argv.iter().map(String::as_str);
            call(&["version", &env].into_iter().chain(words).collect::<Vec<_>>());
        }
        orders
    }

    /// Asks a host.
    pub fn ask(&self, node: &Remote<'_>) -> Result<Answer, Trouble> {
        let name = node.name();
        let orders = self.orders();
        let mut talk = node.start(ASK, &[])?;
        // A host that has ended does not read, and says why below.
        let written = talk.write(format!("{}\n{orders}", orders.len()).as_bytes());
        let mut answer = Answer::default();
        let read = self.hear(&mut talk, &mut answer)?;
        let ended = talk.finish()?;
        let Some(failed) = read else {
            let failure = Failure::new(format!("`{name}` did not say what it has to compile with"));
            return Err(failure.detail(ended.said.lines().map(str::to_string)).into());
        };
        written?;
        // What is not there cannot be called: that is said by who asks.
        let whole = answer.tools.iter().all(Option::is_some);
        if let Some((argv, status)) = failed.filter(|_| whole) {
            let how =
                if status == "124" { "it took too long".into() } else { format!("exit status {status}") };
            let failure =
                Failure::new(format!("`{}` on `{name}` did not say its version: {how}", argv.join(" ")));
            return Err(failure.detail(ended.said.lines().map(str::to_string)).into());
        }
        Ok(answer)
    }

    /// Reads an answer: nothing if it is not whole, otherwise the first call that failed, if there is one.
    fn hear(&self, talk: &mut Talk<'_>, answer: &mut Answer) -> Result<Option<Option<Refused>>, Trouble> {
        let next = |talk: &mut Talk<'_>, word: &str| -> Result<Option<(String, String)>, Trouble> {
            let line = talk.line()?.unwrap_or_default();
            let mut words = line.splitn(3, ' ');
            let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let rest = words.next().unwrap_or_default();
            Ok((first == word).then(|| (second.to_string(), rest.to_string())))
        };
        let digest = |hex: &str| format!("sha256:{hex}").parse::<Digest>().ok();
        let Some((machine, _)) = next(talk, "machine")? else { return Ok(None) };
        answer.platform = machine::named(&machine);
        let Some((path, rest)) = next(talk, "path")? else { return Ok(None) };
        answer.path = if rest.is_empty() { path } else { format!("{path} {rest}") };
        for _ in &self.tools {
            let Some((hex, path)) = next(talk, "tool")? else { return Ok(None) };
            answer.tools.push(digest(&hex).map(|digest| (path, digest)));
        }
        for _ in &self.reads {
            let Some((hex, _)) = next(talk, "read")? else { return Ok(None) };
            answer.reads.push(digest(&hex));
        }
        if !self.packages.is_empty() {
            let line = talk.line()?.unwrap_or_default();
            if line != "none 0" {
                let size = line.strip_prefix("packages ").and_then(|size| size.parse().ok());
                let Some(text) = size.map(|size| sized(talk, size)).transpose()?.flatten() else {
                    return Ok(None);
                };
                answer.packages = Some(text);
            }
        }
        let mut refused = None;
        for argv in &self.versions {
            let Some((status, size)) = next(talk, "said")? else { return Ok(None) };
            let Ok(size) = size.parse() else { return Ok(None) };
            let Some(text) = sized(talk, size)? else { return Ok(None) };
            answer.versions.push(text);
            if status != "0" && refused.is_none() {
                refused = Some((argv.clone(), status));
            }
        }
        Ok(Some(refused))
    }
}

/// A call that failed, and how.
type Refused = (Vec<String>, String);

/// A text of so many bytes; nothing if there are fewer.
fn sized(talk: &mut Talk<'_>, size: u64) -> Result<Option<String>, Trouble> {
    let mut bytes = Vec::new();
    let whole = talk.exact(size, &mut bytes)?;
    Ok(whole.then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_one_that_a_shell_can_set() {
        for good in ["A", "_x9", "GOFLAGS"] {
            assert!(is_variable(good), "{good}");
        }
        for bad in ["", "9A", "A-B", "A B", "A;x", "Ä"] {
            assert!(!is_variable(bad), "{bad}");
        }
    }

    #[test]
    fn orders_are_quoted() {
        let question = Question {
            tools: vec!["go".into(), "/opt/a b/cc".into()],
            versions: vec![vec!["go".into(), "it's".into()]],
            env: [("A".to_string(), "$x".to_string())].into(),
            ..Question::default()
        };
        let orders = question.orders();
        assert!(orders.starts_with("tool go\ntool '/opt/a b/cc'\nversion 'A="), "{orders}");
        assert!(orders.ends_with(r" go 'it'\''s'") || orders.contains(r"'it'\''s'"), "{orders}");
    }
}
