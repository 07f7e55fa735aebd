//! What tools answer: text, and pictures where there are some.

use rmcp::model::{CallToolResult, ContentBlock};
use warren_client::{Error, Execution, Output};

/// Longest text of one part; agents pay for every word.
const TEXT_LIMIT: usize = 100_000;

/// Cuts the middle out of what is too long, and says so.
fn shorten(text: &str) -> String {
    if text.len() <= TEXT_LIMIT {
        return text.to_owned();
    }
    let mut head = TEXT_LIMIT / 2;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - TEXT_LIMIT / 2;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!(
        "{}\n… {} bytes left out …\n{}",
        &text[..head],
        tail - head,
        &text[tail..]
    )
}

pub(crate) fn text(text: &str) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(shorten(text))])
}

/// A failure that the agent should read and may act on.
pub(crate) fn failure(error: &Error) -> CallToolResult {
    let message = warren_service::Chain(error).to_string();
    CallToolResult::error(vec![ContentBlock::text(message)])
}

pub(crate) fn command(output: &Output) -> CallToolResult {
    let mut parts = Vec::new();
    for (name, content) in [
        ("stdout", output.stdout_text()),
        ("stderr", output.stderr_text()),
    ] {
        if !content.is_empty() {
            parts.push(ContentBlock::text(format!(
                "{name}:\n{}",
                shorten(&content)
            )));
        }
    }
    parts.push(ContentBlock::text(format!(
        "exit code: {}",
        output.exit.code
    )));
    if output.exit.code == 0 {
        CallToolResult::success(parts)
    } else {
        CallToolResult::error(parts)
    }
}

pub(crate) fn execution(execution: &Execution) -> CallToolResult {
    let mut parts = Vec::new();
    for (name, content) in [("stdout", &execution.stdout), ("stderr", &execution.stderr)] {
        if !content.is_empty() {
            parts.push(ContentBlock::text(format!("{name}:\n{}", shorten(content))));
        }
    }
    for result in &execution.results {
        for (picture, mime) in [(&result.png, "image/png"), (&result.jpeg, "image/jpeg")] {
            if let Some(data) = picture {
                parts.push(ContentBlock::image(data.clone(), mime));
            }
        }
        let shown = [
            &result.text,
            &result.markdown,
            &result.latex,
            &result.svg,
            &result.html,
        ]
        .into_iter()
        .find_map(Option::as_deref);
        if let Some(shown) = shown {
            parts.push(ContentBlock::text(shorten(shown)));
        }
    }
    match &execution.error {
        Some(error) => {
            let told = format!("{}: {}\n{}", error.name, error.value, error.traceback);
            parts.push(ContentBlock::text(shorten(&told)));
            CallToolResult::error(parts)
        }
        None => {
            if parts.is_empty() {
                parts.push(ContentBlock::text("(no output)"));
            }
            CallToolResult::success(parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle_at_a_character() {
        let text = "é".repeat(TEXT_LIMIT);
        let short = shorten(&text);
        assert!(short.len() < TEXT_LIMIT + 100 && short.contains("left out"));
        assert!(short.starts_with('é') && short.ends_with('é'));
        assert_eq!(shorten("short"), "short");
    }

    #[test]
    fn an_error_of_code_is_an_error_of_the_tool() {
        let raised = Execution {
            stdout: "before".to_owned(),
            error: Some(warren_client::ExecutionError {
                name: "ValueError".to_owned(),
                value: "no".to_owned(),
                traceback: String::new(),
            }),
            ..Execution::default()
        };
        let told = execution(&raised);
        assert_eq!(told.is_error, Some(true));
        assert_eq!(told.content.len(), 2);
        assert_ne!(execution(&Execution::default()).is_error, Some(true));
    }
}
