//! Bodies of the fuzz targets: what must hold for any input.

use warren_types::EgressRules;
use warren_types::egress::{EgressPolicy, normalize_name};

use crate::head::{self, Head};
use crate::hello::{self, Hello};
use crate::query;

/// First bytes of a TLS connection. Panics if a part of a whole message is read differently
/// from the whole, or if a name comes out that is not normalised.
pub fn check_hello_input(bytes: &[u8]) {
    let whole = hello::read(bytes);
    if let Hello::Whole { name, .. } = &whole {
        assert_normal(name.as_deref());
        let longer = [bytes, b"more"].concat();
        assert_eq!(hello::read(&longer), whole, "later bytes changed the name");
    }
    if whole == Hello::NotTls {
        let longer = [bytes, b"more"].concat();
        assert_eq!(
            hello::read(&longer),
            whole,
            "later bytes changed the protocol"
        );
    }
}

/// First bytes of an HTTP connection. Panics if what follows a whole head changes its host.
pub fn check_head_input(bytes: &[u8]) {
    let whole = head::read(bytes);
    if let Head::Whole(name) = &whole {
        assert_normal(name.as_deref());
        let longer = [bytes, b"Host: other\r\n\r\n"].concat();
        assert_eq!(head::read(&longer), whole, "later bytes changed the host");
    }
}

/// A DNS message of a sandbox.
pub fn check_query_input(bytes: &[u8]) {
    let policy = EgressPolicy::new(EgressRules {
        domains: vec!["a.b".to_owned(), "*.c".to_owned()],
        deny: ["0.0.0.0/0".parse()].into_iter().flatten().collect(),
        ..EgressRules::default()
    });
    query::judge(Some(&policy), bytes);
    query::addresses(bytes);
}

fn assert_normal(name: Option<&str>) {
    if let Some(name) = name {
        assert_eq!(normalize_name(name).as_deref(), Some(name));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_seeds_of_the_fuzz_targets_hold() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        for (name, check) in [
            ("client_hello", check_hello_input as fn(&[u8])),
            ("request_head", check_head_input),
            ("dns_query", check_query_input),
        ] {
            let files = fs::read_dir(seeds.join(name)).unwrap();
            let mut count = 0;
            for file in files {
                check(&fs::read(file.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
        }
    }
}
