//! Variables: the platform's, the sandbox's, and what a process gets to see.

use std::collections::BTreeMap;

use crate::users::User;

/// Variables by name.
pub(crate) type Vars = BTreeMap<String, String>;

/// Search path when the agent itself has none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that every process gets.
#[derive(Debug, Clone, Default)]
pub(crate) struct GlobalEnv {
    defaults: Vars,
    internal: Vars,
    user: Vars,
}

impl GlobalEnv {
    /// Sets a variable of the platform, which the sandbox's own can't replace.
    pub(crate) fn set_internal(&mut self, name: &str, value: &str) {
        self.internal.insert(name.to_owned(), value.to_owned());
    }

    /// Sets variables of the platform that the sandbox's own replace.
    pub(crate) fn set_defaults(&mut self, vars: Vars) {
        self.defaults = vars;
    }

    /// Replaces all variables of the sandbox. Names that can't be part of an environment
    /// are left out.
    pub(crate) fn replace_user(&mut self, vars: Vars) {
        self.user = vars;
        self.user.retain(|name, value| valid(name, value));
    }

    /// All kinds together.
    #[must_use]
    pub(crate) fn merged(&self) -> Vars {
        let mut all = self.defaults.clone();
        all.extend(self.user.clone());
        all.extend(self.internal.clone());
        all
    }

    /// The environment of one process, from nothing but what is given here.
    #[must_use]
    pub(crate) fn for_process(&self, path: &str, user: &User, request: &Vars) -> Vars {
        let mut vars = Vars::new();
        vars.insert("PATH".to_owned(), path.to_owned());
        vars.insert("HOME".to_owned(), user.home.clone());
        vars.insert("USER".to_owned(), user.name.clone());
        vars.insert("LOGNAME".to_owned(), user.name.clone());
        vars.extend(self.merged());
        vars.extend(request.clone());
        vars.retain(|name, value| valid(name, value));
        vars
    }
}

fn valid(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn later_levels_win_and_internal_ones_stay() {
        let mut env = GlobalEnv::default();
        env.set_internal("E2B_SANDBOX", "true");
        env.set_defaults(vars(&[("A", "0")]));
        env.replace_user(vars(&[("A", "1"), ("E2B_SANDBOX", "no"), ("b=d", "x")]));
        assert_eq!(env.merged(), vars(&[("A", "1"), ("E2B_SANDBOX", "true")]));

        let user = User {
            name: "u".into(),
            uid: 1,
            gid: 1,
            home: "/h".into(),
        };
        let process = env.for_process("/bin", &user, &vars(&[("A", "2"), ("HOME", "/x")]));
        assert_eq!(
            process,
            vars(&[
                ("A", "2"),
                ("E2B_SANDBOX", "true"),
                ("HOME", "/x"),
                ("LOGNAME", "u"),
                ("PATH", "/bin"),
                ("USER", "u")
            ])
        );
    }

    #[test]
    fn a_replacement_forgets_the_old_set() {
        let mut env = GlobalEnv::default();
        env.replace_user(vars(&[("X", "1")]));
        env.replace_user(vars(&[("Y", "2")]));
        assert_eq!(env.merged(), vars(&[("Y", "2")]));
    }
}
