//! `users` and owners of an image: names become numbers by the base's `/etc/passwd` and `/etc/group`,
//! and users are added to them. Knows texts, not layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Names, Placed};
use crate::error::{Failure, Result};

/// The largest number of a user or group on Linux; the one above means none.
const LARGEST: u32 = u32::MAX - 1;

/// A user that an image gets
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// The user's name, and the name of its group
    name: Placed<String>,
    /// The user's number
    uid: Placed<u32>,
    /// The group's number; the user's if it is absent
    gid: Option<Placed<u32>>,
    /// The home folder, made with mode 0700; `/nonexistent`, and not made, if it is absent
    home: Option<Placed<String>>,
    /// The program that a login starts; `/sbin/nologin` if it is absent
    shell: Option<Placed<String>>,
}

/// A user, as a part of *what*.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct User {
    /// The name of the user and of the group.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The home folder, absolute.
    pub home: Option<String>,
    /// What a login starts.
    pub shell: Option<String>,
}

impl UserEntry {
    /// Checks what can be checked.
    pub fn check(&self, names: &mut dyn Names) {
        if !is_name(&self.name) || self.name.bytes().all(|byte| byte.is_ascii_digit()) {
            let hint = "letters, digits, `_`, `-` and `.`, and no digit or `-` at the beginning";
            names.mistake(
                self.name.range(),
                format!("`{}` cannot name a user", self.name.value),
                Some(hint.into()),
            );
        }
        for number in [Some(&self.uid), self.gid.as_ref()].into_iter().flatten() {
            if number.value > LARGEST {
                let message = format!("{} is no number of a user or group", number.value);
                names.mistake(number.range(), message, None);
            }
        }
        for path in [&self.home, &self.shell].into_iter().flatten() {
            let fine = path.starts_with('/')
                && !path.contains([':', '\n', '\0'])
                && path.split('/').all(|name| name != "..");
            if !fine {
                let message = format!("`{}` is not an absolute path", path.value);
                names.mistake(path.range(), message, None);
            }
        }
    }

    /// The user.
    pub fn user(&self) -> User {
        User {
            name: self.name.value.clone(),
            uid: self.uid.value,
            gid: self.gid.as_ref().map_or(self.uid.value, |gid| gid.value),
            home: self.home.as_ref().map(|home| home.value.clone()),
            shell: self.shell.as_ref().map(|shell| shell.value.clone()),
        }
    }
}

/// An owner as it is written: a user, and perhaps a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Owner {
    user: Who,
    group: Option<Who>,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Number(u32),
    Name(String),
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        let text = |who: &Who| match who {
            Who::Number(number) => number.to_string(),
            Who::Name(name) => name.clone(),
        };
        match &owner.group {
            Some(group) => format!("{}:{}", text(&owner.user), text(group)),
            None => text(&owner.user),
        }
    }
}

impl Owner {
    /// Reads `65532`, `0:0`, `app` or `app:staff`; otherwise what is wrong, and a hint.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let who = |text: &str| match text.parse::<u32>() {
            Ok(number) if number <= LARGEST && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Who::Number(number))
            }
            Ok(_) => None,
            Err(_) => is_name(text).then(|| Who::Name(text.to_string())),
        };
        let parsed = match text.split_once(':') {
            Some((user, group)) => who(user).zip(who(group)).map(|(user, group)| (user, Some(group))),
            None => who(text).map(|user| (user, None)),
        };
        match parsed {
            Some((user, group)) => Ok(Self { user, group }),
            None => Err((
                format!("`{text}` is not an owner"),
                "a user, and perhaps a group: `0:0`, `65532`, `app`, `app:staff`".to_string(),
            )),
        }
    }

    /// Whether the image's users have to be known to say who it is.
    pub fn is_named(&self) -> bool {
        [Some(&self.user), self.group.as_ref()].into_iter().flatten().any(|who| matches!(who, Who::Name(_)))
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || "_-.$".contains(c))
}

/// The users and groups of an image.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

impl Accounts {
    /// The numbers of an owner. A user's number alone is also the group's; a name has its own group.
    pub fn resolve(&self, owner: &Owner) -> Result<(u32, u32)> {
        let (uid, own) = match &owner.user {
            Who::Number(number) => (*number, *number),
            Who::Name(name) => {
                let numbers = find(&self.passwd, name)
                    .and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
                numbers.ok_or_else(|| {
                    Failure::new(format!("the image has no user `{name}`"))
                        .hint("declare it in `users`, or write a number")
                })?
            }
        };
        let gid = match &owner.group {
            None => own,
            Some(Who::Number(number)) => *number,
            Some(Who::Name(name)) => {
                let number = find(&self.group, name).and_then(|fields| fields.get(2)?.parse().ok());
                number.ok_or_else(|| {
                    Failure::new(format!("the image has no group `{name}`")).hint("write a number")
                })?
            }
        };
        Ok((uid, gid))
    }

    /// Adds a user and its group; what is there already just so stays as it is.
    pub fn add(&mut self, user: &User) -> Result<()> {
        let User { name, uid, gid, home, shell } = user;
        let taken = |what: &str, by: &str, number: &u32| {
            Failure::new(format!("the {what} `{name}` cannot be {number}: the base has `{by}`"))
                .hint("choose another name or number, or take the base's")
        };
        match find(&self.passwd, name) {
            Some(fields)
                if fields.get(2) == Some(&&uid.to_string()[..])
                    && fields.get(3) == Some(&&gid.to_string()[..]) => {}
            Some(fields) => return Err(taken("user", &fields.join(":"), uid).into()),
            None => {
                if let Some(other) = by_number(&self.passwd, *uid) {
                    return Err(taken("user", other, uid).into());
                }
                let home = home.as_deref().unwrap_or("/nonexistent");
                let shell = shell.as_deref().unwrap_or("/sbin/nologin");
                append(&mut self.passwd, &format!("{name}:x:{uid}:{gid}::{home}:{shell}\n"));
            }
        }
        match find(&self.group, name) {
            Some(fields) if fields.get(2) == Some(&&gid.to_string()[..]) => {}
            Some(fields) => return Err(taken("group", &fields.join(":"), gid).into()),
            // A group with this number will do whatever its name.
            None if by_number(&self.group, *gid).is_some() => {}
            None => append(&mut self.group, &format!("{name}:x:{gid}:\n")),
        }
        Ok(())
    }
}

/// The fields of the line that begins with a name.
fn find<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').collect())
}

fn by_number(text: &str, number: u32) -> Option<&str> {
    text.lines().find(|line| line.split(':').nth(2) == Some(&number.to_string()))
}

fn append(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/bin/sh\nuser:x:70:71::/:/bin/sh".into(),
            group: "root:x:0:\nwww-data:x:33:\nstaff:x:50:\n".into(),
        }
    }

    fn user(name: &str, uid: u32, gid: u32) -> User {
        User { name: name.into(), uid, gid, home: None, shell: None }
    }

    #[test]
    fn owners_are_read_and_resolved() {
        for (text, numbers) in [
            ("0", (0, 0)),
            ("65532", (65532, 65532)),
            ("1:2", (1, 2)),
            ("www-data", (33, 33)),
            ("user", (70, 71)),
            ("user:staff", (70, 50)),
            ("5:staff", (5, 50)),
            ("www-data:0", (33, 0)),
            ("4294967294", (LARGEST, LARGEST)),
        ] {
            let owner = Owner::parse(text).unwrap();
            assert_eq!(debian().resolve(&owner).unwrap(), numbers, "{text}");
            assert_eq!(String::from(owner), text);
        }
        for text in ["", ":", "1:", ":1", "-1", "+1", "4294967295", "a b", "1:2:3", "7up", "a/b"] {
            assert!(Owner::parse(text).is_err(), "{text}");
        }
        let told = |text: &str| debian().resolve(&Owner::parse(text).unwrap()).unwrap_err().to_string();
        assert_eq!(told("nobody"), "the image has no user `nobody`");
        assert_eq!(told("0:user"), "the image has no group `user`");
    }

    #[test]
    fn users_are_added_at_the_end() {
        let mut accounts = debian();
        let mut app = user("app", 1000, 1000);
        app.home = Some("/home/app".into());
        accounts.add(&app).unwrap();
        accounts.add(&app).unwrap();
        accounts.add(&user("other", 1001, 50)).unwrap();
        assert_eq!(
            accounts.passwd,
            format!(
                "{}\napp:x:1000:1000::/home/app:/sbin/nologin\nother:x:1001:50::/nonexistent:/sbin/nologin\n",
                debian().passwd
            )
        );
        assert_eq!(accounts.group, format!("{}app:x:1000:\n", debian().group));
        let told = |user: User| debian().add(&user).unwrap_err().to_string();
        assert_eq!(
            told(user("www-data", 34, 33)),
            "the user `www-data` cannot be 34: the base has `www-data:x:33:33::/var/www:/bin/sh`"
        );
        assert_eq!(
            told(user("web", 33, 100)),
            "the user `web` cannot be 33: the base has `www-data:x:33:33::/var/www:/bin/sh`"
        );
        assert_eq!(
            told(user("staff", 100, 100)),
            "the group `staff` cannot be 100: the base has `staff:x:50:`"
        );
    }
}
