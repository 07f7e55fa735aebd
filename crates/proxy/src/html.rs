//! The page form of a refusal.

use std::fmt::Write;

/// A page: what happened, to what, and the facts.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    /// Labels and values, shown as a list.
    pub(crate) facts: &'a [(&'a str, &'a str)],
}

/// Makes text harmless between tags and in quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Renders a whole document. It starts with `<html` and ends with `</html>` exactly.
pub(crate) fn render(page: &Page<'_>) -> String {
    let title = escape(page.title);
    let mut out = format!(
        "<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n\
         body{{margin:15vh auto;max-width:40rem;padding:0 1rem;\
         font-family:system-ui,sans-serif;line-height:1.5;color:#222;background:#fafafa}}\n\
         dt{{color:#666}}dd{{margin:0 0 .75rem;font-family:ui-monospace,monospace;\
         overflow-wrap:anywhere}}\n\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}dt{{color:#999}}}}\n\
         </style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}</p>\n<dl>\n",
        escape(page.text)
    );
    for (label, value) in page.facts {
        writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(label), escape(value))
            .expect("a string takes all text");
    }
    out.push_str("</dl>\n</body>\n</html>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_the_edges_are_exact() {
        let html = render(&Page {
            title: "A & B",
            text: "it's",
            facts: &[("host", "<script>alert(\"1\")</script>")],
        });
        assert!(
            html.starts_with("<html") && html.ends_with("</html>"),
            "{html}"
        );
        assert!(
            html.contains("<h1>A &amp; B</h1>") && html.contains("it&#39;s"),
            "{html}"
        );
        assert!(
            html.contains("&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;"),
            "{html}"
        );
        assert!(!html.contains("<script"), "{html}");
    }
}
