//! Tests of the plan.

use proptest::prelude::*;

use super::*;

fn step(kind: &str, args: &[&str]) -> Step {
    Step {
        kind: kind.to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        files_hash: None,
        force: false,
    }
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn missing_arguments_are_told_in_the_words_users_know() {
    for (kind, args, message) in [
        ("RUN", &[][..], "RUN requires command argument"),
        ("run", &[""][..], "RUN requires command argument"),
        (
            "COPY",
            &["a"][..],
            "COPY requires a local path and a container path argument",
        ),
        (
            "COPY",
            &["a", "b"][..],
            "COPY requires files hash to be set",
        ),
        ("USER", &[][..], "USER requires a username argument"),
        ("WORKDIR", &[][..], "WORKDIR requires a path argument"),
        ("ENV", &[][..], "ENV does not support passing no arguments"),
        (
            "ENV",
            &["A"][..],
            "ENV requires both a key and value arguments",
        ),
        (
            "VOLUME",
            &["x"][..],
            "failed to get command for step VOLUME: command type VOLUME is not implemented",
        ),
    ] {
        assert_eq!(
            Instruction::parse(&step(kind, args)),
            Err(message.to_owned())
        );
    }
}

#[test]
fn steps_of_any_case_are_understood() {
    assert_eq!(
        Instruction::parse(&step("run", &["id", ""])),
        Ok(Instruction::Run {
            command: "id".to_owned(),
            user: None
        })
    );
    assert_eq!(
        Instruction::parse(&step("User", &["bob", "true"])),
        Ok(Instruction::User {
            name: "bob".to_owned(),
            admin: true
        })
    );
}

#[test]
fn expansion_runs_nothing_and_keeps_the_rest_verbatim() {
    let vars = env(&[("A", "1"), ("EMPTY", "")]);
    let lookup = |name: &str| vars.get(name).cloned();
    for (text, expected) in [
        ("$A${A}x$A_", "11x"),
        (
            "\"quoted\" \\back `id` $(id) it's",
            "\"quoted\" \\back `id` $(id) it's",
        ),
        ("-----BEGIN\nline\n", "-----BEGIN\nline\n"),
        ("${A:-d}${NO:-d$A}${EMPTY:-e}${EMPTY-e}", "1d1e"),
        ("${A:+set}${NO+set}", "set"),
        ("100$ $1 $$ ${ ${} ${A", "100$ $1 $$ ${ ${} ${A"),
        ("${NO:-{}}", "{}"),
    ] {
        assert_eq!(expand(text, &lookup), expected, "{text}");
    }
}

#[test]
fn variables_see_the_ones_before_them() {
    let outer = env(&[("PATH", "/bin"), ("A", "outer")]);
    let pairs = [
        ("A", "1"),
        ("B", "$A-${PATH}"),
        ("PATH", "${PATH}:/x"),
        ("C", "$PATH"),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let set = set_env(&env(&[("Z", "z")]), &outer, &pairs);
    assert_eq!(
        set,
        env(&[
            ("A", "1"),
            ("B", "1-/bin"),
            ("C", "/bin:/x"),
            ("PATH", "/bin:/x"),
            ("Z", "z")
        ])
    );
    assert!(needs_more_than(&set, &["$HOME"]));
    assert!(!needs_more_than(&set, &["$A ${B}", "$1"]));
}

#[test]
fn a_search_path_is_completed_and_keeps_its_end() {
    let path = |own: &str| {
        let context = Context::of_image(env(&[("PATH", own)]));
        context.command_env()["PATH"].clone()
    };
    assert_eq!(path("/opt/bin"), format!("/opt/bin:{STANDARD_PATH}"));
    assert_eq!(
        path(&format!("{STANDARD_PATH}:/my/path")),
        format!("{STANDARD_PATH}:/my/path")
    );
    assert!(Context::of_image(BTreeMap::new()).command_env().is_empty());
}

#[test]
fn force_sticks() {
    let mut steps = vec![
        step("RUN", &["a"]),
        step("RUN", &["b"]),
        step("RUN", &["c"]),
    ];
    steps[1].force = true;
    assert_eq!(forced(false, &steps), [false, true, true]);
    assert_eq!(forced(true, &steps), [true, true, true]);
}

#[test]
fn keys_tell_apart_what_differs() {
    let base = step_key("p", &step("RUN", &["a", "b"]));
    assert_eq!(base, step_key("p", &step("run", &["a", "b"])));
    assert_ne!(base, step_key("q", &step("RUN", &["a", "b"])));
    assert_ne!(base, step_key("p", &step("RUN", &["a b"])));
    let hashed = Step {
        files_hash: Some("a".to_owned()),
        ..step("RUN", &["a", "b"])
    };
    assert_ne!(base, step_key("p", &hashed));
    let forced = Step {
        force: true,
        ..step("RUN", &["a", "b"])
    };
    assert_eq!(base, step_key("p", &forced));
}

#[test]
fn paths_are_joined_and_cleaned() {
    assert_eq!(join("/a/b", "../c/./d//"), "/a/c/d");
    assert_eq!(join("/a", "/../x"), "/x");
    assert_eq!(join("/", "x"), "/x");
    for (src, kept) in [
        ("folder/*", "folder"),
        (".", ""),
        ("./a/b/", "a/b"),
        ("*.txt", ""),
        ("a/[bc]/d", "a"),
    ] {
        assert_eq!(without_pattern(src), kept, "{src}");
    }
}

proptest! {
    #[test]
    fn text_without_a_dollar_is_verbatim(text in "[^$]*") {
        prop_assert_eq!(expand(&text, &|_| Some("x".to_owned())), text);
    }

    #[test]
    fn expansion_never_panics(text in "[${}:+A_0é-]{0,40}") {
        expand(&text, &|_| None);
        expand(&text, &|_| Some("v".to_owned()));
    }

    #[test]
    fn joined_paths_are_clean(path in "[a./]{0,20}") {
        let joined = join("/base", &path);
        prop_assert!(joined.starts_with('/'));
        prop_assert!(!joined.contains("//"));
        prop_assert!(!joined.split('/').any(|part| part == "." || part == ".."));
    }
}
