//! Whom root becomes: `--user`.

use std::{env, fmt, str::FromStr};

use nix::unistd::{Gid, Group, Uid, User, getresuid};

/// Who files on other systems belong to that have no user here, on all current distributions: a user who owns nothing.
const NOBODY: u32 = 65534;

/// A user as it is written: `NAME`, `UID`, and `:GROUP` behind it if it is not to be the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    user: String,
    group: Option<String>,
}

impl FromStr for UserSpec {
    type Err = UserSpecError;

    fn from_str(text: &str) -> Result<Self, UserSpecError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group.to_owned())),
            None => (text, None),
        };
        if user.is_empty() || group.as_deref().is_some_and(str::is_empty) {
            return Err(UserSpecError);
        }
        Ok(Self { user: user.to_owned(), group })
    }
}

/// Neither a name nor a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user is NAME or UID, with :GROUP behind it if it is not to be the user's own group")]
pub struct UserSpecError;

/// An ordinary user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Not 0.
    pub uid: Uid,
    /// The only group, as there will be no supplementary ones.
    pub gid: Gid,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl Identity {
    /// Whom this process becomes: who was asked for; without a wish who called sudo, or the set-uid file, else nobody.
    /// None if it is no root.
    ///
    /// # Errors
    /// The text says who there is not, or may not be become.
    pub(super) fn choose(wanted: Option<&UserSpec>) -> Result<Option<Self>, String> {
        let current = getresuid().map_err(|error| error.to_string())?;
        match wanted {
            None if !is_root() => Ok(None),
            None if !current.real.is_root() => Self::of_user(current.real, None).map(Some),
            None => Ok(Some(Self::of_sudo(|name| env::var(name).ok()).unwrap_or(Self::NOBODY))),
            Some(wanted) => {
                let identity = Self::look_up(wanted)?;
                if is_root() {
                    return Ok(Some(identity));
                }
                // It may stand in the environment of a script that is run with sudo or without.
                if identity.uid == current.effective {
                    return Ok(None);
                }
                Err(format!(
                    "--user {wanted} needs root, and this is uid {}, which stays as it is: leave --user out, or use sudo",
                    current.effective
                ))
            }
        }
    }

    const NOBODY: Self = Self { uid: Uid::from_raw(NOBODY), gid: Gid::from_raw(NOBODY) };

    /// Who called sudo, which tells by two variables. Root's own sudo says 0, as does one that was tampered with.
    fn of_sudo(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name| variable(name)?.parse::<u32>().ok().filter(|id| *id != 0);
        Some(Self { uid: number("SUDO_UID")?.into(), gid: number("SUDO_GID")?.into() })
    }

    fn look_up(wanted: &UserSpec) -> Result<Self, String> {
        let UserSpec { user, group } = wanted;
        let gid = group.as_deref().map(find_group).transpose()?;
        let identity = match (User::from_name(user), user.parse::<u32>()) {
            (Ok(Some(found)), _) => Self { uid: found.uid, gid: gid.unwrap_or(found.gid) },
            (_, Ok(uid)) => Self::of_user(uid.into(), gid)?,
            _ => {
                return Err(format!(
                    "--user {wanted}: there is no user `{user}` here: `getent passwd` lists them"
                ));
            }
        };
        if identity.uid.is_root() {
            return Err(format!(
                "--user {wanted} is root, which is what is given up: name an ordinary user; without --user it is who \
                 called sudo, else nobody"
            ));
        }
        Ok(identity)
    }

    /// A user by its number, which need not have a name if the group is given.
    fn of_user(uid: Uid, gid: Option<Gid>) -> Result<Self, String> {
        if let Some(gid) = gid {
            return Ok(Self { uid, gid });
        }
        match User::from_uid(uid) {
            Ok(Some(found)) => Ok(Self { uid, gid: found.gid }),
            _ => Err(format!(
                "the user {uid} has no name here, and so no group: give one, as in --user {uid}:{uid}"
            )),
        }
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => f.write_str(&self.user),
        }
    }
}

fn find_group(group: &str) -> Result<Gid, String> {
    match (Group::from_name(group), group.parse::<u32>()) {
        (Ok(Some(found)), _) => Ok(found.gid),
        (_, Ok(gid)) => Ok(gid.into()),
        _ => Err(format!("there is no group `{group}` here: `getent group` lists them")),
    }
}

/// Whether this process acts as root.
pub(super) fn is_root() -> bool {
    Uid::effective().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(text: &str) -> Result<(u32, u32), String> {
        let found = Identity::look_up(&text.parse().expect("a user"))?;
        Ok((found.uid.as_raw(), found.gid.as_raw()))
    }

    #[test]
    fn users_are_names_or_numbers_with_or_without_a_group() {
        assert_eq!(look_up("4711:815"), Ok((4711, 815)));
        assert_eq!(look_up("4711:root"), Ok((4711, 0)));
        let nobody = User::from_name("nobody").expect("answers").expect("is everywhere");
        let ids = (nobody.uid.as_raw(), nobody.gid.as_raw());
        assert_eq!(look_up("nobody"), Ok(ids));
        assert_eq!(look_up(&nobody.uid.to_string()), Ok(ids));
        assert_eq!(look_up("nobody:7"), Ok((ids.0, 7)));
    }

    #[test]
    fn who_is_not_there_or_root_is_refused_with_a_remedy() {
        for (text, says) in [
            ("no-such-user", "getent passwd"),
            ("nobody:no-such-group", "getent group"),
            ("471147", "--user 471147:471147"),
            ("root", "ordinary user"),
            ("0:5", "ordinary user"),
        ] {
            let told = look_up(text).expect_err(text);
            assert!(told.contains(says), "{told}");
        }
        for text in ["", ":", ":group", "user:"] {
            assert_eq!(text.parse::<UserSpec>(), Err(UserSpecError), "{text:?}");
        }
    }

    #[test]
    fn sudo_tells_who_called_it() {
        let of = |uid: Option<&str>, gid: Option<&str>| {
            let found = Identity::of_sudo(|name| match name {
                "SUDO_UID" => uid.map(str::to_owned),
                "SUDO_GID" => gid.map(str::to_owned),
                _ => None,
            });
            found.map(|identity| (identity.uid.as_raw(), identity.gid.as_raw()))
        };
        assert_eq!(of(Some("1000"), Some("100")), Some((1000, 100)));
        for (uid, gid) in [
            (None, None),
            (Some("1000"), None),
            (Some("0"), Some("0")),
            (Some("1000"), Some("0")),
            (Some("x"), Some("1")),
        ] {
            assert_eq!(of(uid, gid), None, "{uid:?} {gid:?}");
        }
    }
}
