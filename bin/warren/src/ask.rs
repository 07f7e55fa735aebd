//! Questions to the person at the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::bail;

use crate::print::warning;

/// Refuses to go on without somebody to ask; `flag` answers in their place.
fn require_person(flag: &str) -> anyhow::Result<()> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    bail!("nobody to ask\nhint: say {flag}")
}

/// Reads one line; an end of input counts as an interruption.
fn answer(prompt: &str) -> anyhow::Result<String> {
    write!(io::stderr(), "{prompt} ")?;
    let mut text = String::new();
    if io::stdin().lock().read_line(&mut text)? == 0 {
        bail!("Canceled");
    }
    Ok(text.trim().to_owned())
}

/// Asks unless told not to; no answer is a no.
pub(crate) fn confirmed(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    require_person("--yes")?;
    let answer = answer(&format!("{question} [y/N]"))?;
    let yes = matches!(answer.to_lowercase().as_str(), "y" | "yes");
    if !yes {
        warning("Canceled");
    }
    Ok(yes)
}

/// Asks for a text; an empty answer takes the default.
pub(crate) fn text(question: &str, default: &str, flag: &str) -> anyhow::Result<String> {
    require_person(flag)?;
    let answer = answer(&format!("{question} [{default}]"))?;
    if answer.is_empty() {
        return Ok(default.to_owned());
    }
    Ok(answer)
}

/// Lets the person choose one; returns its index.
pub(crate) fn one(question: &str, choices: &[String], flag: &str) -> anyhow::Result<usize> {
    require_person(flag)?;
    show(question, choices);
    loop {
        match parse(&answer("Number:")?, choices.len()).as_deref() {
            Some([index]) => return Ok(*index),
            _ => warning(&format!("One number from 1 to {}, please.", choices.len())),
        }
    }
}

/// Lets the person choose any number of them; returns their indices.
pub(crate) fn several(
    question: &str,
    choices: &[String],
    flag: &str,
) -> anyhow::Result<Vec<usize>> {
    require_person(flag)?;
    show(question, choices);
    loop {
        match parse(
            &answer("Numbers, such as 1,3 (none: enter):")?,
            choices.len(),
        ) {
            Some(chosen) => return Ok(chosen),
            None => warning(&format!("Numbers from 1 to {}, please.", choices.len())),
        }
    }
}

fn show(question: &str, choices: &[String]) {
    warning(question);
    for (index, choice) in choices.iter().enumerate() {
        warning(&format!("  {}) {choice}", index + 1));
    }
}

/// Numbers from 1 on, separated by commas or blanks, as sorted indices.
fn parse(text: &str, count: usize) -> Option<Vec<usize>> {
    let mut chosen = text
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(|word| match word.parse::<usize>() {
            Ok(number) if (1..=count).contains(&number) => Some(number - 1),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    chosen.sort_unstable();
    chosen.dedup();
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn choices_are_numbers_of_the_list() {
        assert_eq!(parse("3, 1 1", 3), Some(vec![0, 2]));
        assert_eq!(parse("", 3), Some(vec![]));
        for bad in ["0", "4", "x", "-1", "1;2"] {
            assert_eq!(parse(bad, 3), None, "{bad}");
        }
    }
}
