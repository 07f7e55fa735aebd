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
    /// The same, and the token must come with a team.
    PersonInTeam,
    /// The administrator.
    Admin,
    /// A volume's token.
    Volume,
}

/// Who leaves an entry in the audit trail for what an operation does. Of what it refuses,
/// the request always leaves one, unless the operation only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trail {
    /// Nobody: it only reads.
    Reads,
    /// The request, but only the first of many alike: it is asked for all the time.
    Frequent,
    /// The request, before it is answered.
    Request,
    /// The change itself, in its transaction.
    Change,
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
    pub(crate) trail: Trail,
}

impl Operation {
    /// Whether a credential that may only read must not be let through.
    pub(crate) fn writes(&self) -> bool {
        self.trail != Trail::Reads
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_changes_something_is_in_the_trail() {
        let all = crate::operations()
            .into_iter()
            .chain(crate::own_operations());
        for operation in all.filter(|operation| operation.method != Method::GET) {
            assert_ne!(operation.trail, Trail::Reads, "{operation:?}");
        }
    }
}
