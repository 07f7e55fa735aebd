//! The table of operations: what is served, to whom, and whether it is built.

use std::collections::HashMap;

use http::Method;

/// Which credentials an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// None.
    Open,
    /// A team's API key, or the administrator for a team.
    Key,
    /// The same, or an access token.
    KeyOrToken,
    /// An access token, or the administrator for a team. No API key.
    Person,
    /// The administrator.
    Admin,
    /// A volume's token.
    Volume,
}

/// One operation of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Method.
    pub method: Method,
    /// Path with parameters in braces.
    pub path: &'static str,
    /// Whether it does what it says; if not, it answers 501.
    pub is_built: bool,
    pub(crate) access: Access,
}

/// Operations by what a request shows of itself.
#[derive(Debug, Default)]
pub(crate) struct Operations(HashMap<&'static str, Vec<Operation>>);

impl Operations {
    pub(crate) fn new(all: Vec<Operation>) -> Self {
        let mut by_path: HashMap<_, Vec<_>> = HashMap::new();
        for operation in all {
            by_path.entry(operation.path).or_default().push(operation);
        }
        Self(by_path)
    }

    /// The operation of a route; `HEAD` is a `GET`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Option<&Operation> {
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        self.0
            .get(path)?
            .iter()
            .find(|operation| operation.method == *method)
    }
}
