//! Words for a shell.

/// Makes a word that a shell takes as it is: plain ones stay, others are put in quotes.
#[must_use]
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\"'\"'"))
    }
}

/// Makes a line of which each word reaches the command as it is.
pub fn join_words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| quote(word.as_ref())).collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        assert_eq!(
            join_words(["echo", "a b", "", "it's"]),
            r#"echo 'a b' '' 'it'"'"'s'"#
        );
        assert_eq!(quote("A=b,c:d@e%f+g/h.i-j_k"), "A=b,c:d@e%f+g/h.i-j_k");
    }
}
