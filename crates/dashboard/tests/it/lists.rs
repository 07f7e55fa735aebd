//! What lists show, by pages and filters.

use jiff::Timestamp;
use warren_types::{EndReason, LogEntry, LogLevel};

use crate::world::{World, until};

fn rows(page: &str) -> usize {
    let body = page.split("<tbody>").nth(1).unwrap_or_default();
    body.matches("<tr>").count()
}

/// Where the link of this text leads.
fn link(page: &str, text: &str) -> Option<String> {
    let end = page.find(&format!(">{text}</a>"))?;
    let start = page[..end].rfind("href=\"")? + 6;
    let href = page[start..].split('"').next()?;
    Some(href.replace("&#38;", "&").replace("&amp;", "&"))
}

#[tokio::test]
async fn five_hundred_sandboxes_come_fifty_at_a_time() {
    let world = World::new().await;
    let most = Some(1000);
    let by = warren_control::By::SYSTEM;
    let set = world
        .control
        .team_set_max_sandboxes(&by, world.team.id, most);
    set.await.unwrap();
    for number in 0..500 {
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        let labels = [("parity", parity)];
        world.sandbox_with(world.team.id, &labels).await;
    }
    let browser = world.browser(&world.key).await;
    let (mut path, mut pages, mut shown) = ("/dashboard".to_owned(), 0, 0);
    loop {
        let page = browser.get(&path).await.page();
        assert!(page.contains("500 running"), "the whole number is told");
        pages += 1;
        shown += rows(&page);
        match link(&page, "Older") {
            Some(next) => path = next,
            None => break,
        }
        assert!(pages < 20);
    }
    assert_eq!((pages, shown), (10, 500));
    let odd = browser.get("/dashboard?label=parity%3Dodd").await.page();
    assert!(odd.contains("250 such running") && !odd.contains("parity=even"));
    let next = link(&odd, "Older").unwrap();
    assert!(next.contains("label=parity%3Dodd"), "{next}");
    let second = browser.get(&next).await.page();
    assert_eq!(rows(&second), 50);
    assert_eq!(
        link(&second, "Newest").as_deref(),
        Some("/dashboard?label=parity%3Dodd")
    );
    let of_base = browser.get("/dashboard?template=base").await.page();
    assert_eq!(rows(&of_base), 50);
    let paused = browser.get("/dashboard?state=paused").await.page();
    assert!(paused.contains("No sandbox is like that"));
}

#[tokio::test]
async fn the_log_is_searched_by_severity_source_text_and_time() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let line = |minute: i64, level, logger: &str, message: &str| LogEntry {
        timestamp: Timestamp::from_second(1_767_261_600 + minute * 60).unwrap(),
        level,
        message: message.to_owned(),
        fields: [("logger".to_owned(), logger.to_owned())].into(),
    };
    for entry in [
        line(0, LogLevel::Debug, "envd", "listening"),
        line(1, LogLevel::Info, "process", "process started"),
        line(2, LogLevel::Error, "process", "process failed"),
        line(3, LogLevel::Warn, "node", "disk is nearly full"),
    ] {
        world.node.log(sandbox.as_str(), entry);
    }
    let browser = world.browser(&world.key).await;
    let all = [
        "listening",
        "process started",
        "process failed",
        "disk is nearly",
    ];
    for (query, expected) in [
        ("", vec![0, 1, 2, 3]),
        ("level=warn", vec![2, 3]),
        ("source=process", vec![1, 2]),
        ("search=process&level=error", vec![2]),
        // The first line is of 10:00.
        ("since=2026-01-01T10:01", vec![1, 2, 3]),
        ("until=2026-01-01T10:01", vec![0, 1]),
        (
            "since=2026-01-01T10:01&until=2026-01-01T10:02&source=process",
            vec![1, 2],
        ),
        ("search=nothing-like-that", vec![]),
    ] {
        // The page of one that has ended has the same filter.
        for part in ["logs", "ended"] {
            let path = format!("/dashboard/sandboxes/{sandbox}/{part}?{query}");
            let page = browser.get(&path).await.page();
            for (index, text) in all.iter().enumerate() {
                let lines = page.split("<pre").nth(1).unwrap_or_default();
                let is_shown = lines.contains(text);
                assert_eq!(
                    is_shown,
                    expected.contains(&index),
                    "{part}?{query}: {text}"
                );
            }
        }
    }
    let bad = browser
        .get(&format!("/dashboard/sandboxes/{sandbox}/logs?since=soon"))
        .await;
    assert_eq!(bad.status.as_u16(), 400);
    assert!(bad.text.contains("in UTC"));
}

#[tokio::test]
async fn what_is_left_of_a_sandbox_that_has_ended_is_shown() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    world.node.die(&sandbox, EndReason::OutOfMemory).await;
    let browser = world.browser(&world.key).await;
    let path = format!("/dashboard/sandboxes/{sandbox}");
    let (browser, path) = (&browser, &path);
    until("the end is known", || async move {
        browser.get(path).await.status.as_u16() == 303
    })
    .await;
    let ended = format!("{path}/ended");
    browser.get(path).await.leads_to(&ended);
    let page = browser.get(&ended).await.page();
    assert!(
        page.contains("This sandbox has ended: it ran out of memory (it used 512 MiB)"),
        "{page}"
    );
    let facts = browser.get(&format!("{path}/facts")).await;
    assert_eq!(facts.status.as_u16(), 404);
}

#[tokio::test]
async fn the_trail_tells_who_did_what() {
    let world = World::new().await;
    let browser = world.browser(&world.key).await;
    let sandbox = world.sandbox().await;
    let kill = format!("/dashboard/sandboxes/{sandbox}/kill");
    browser.post(&kill, &[]).await.leads_to("/dashboard");
    let refused = browser.post_with(&kill, Some("forged"), &[]).await;
    assert_eq!(refused.status.as_u16(), 403);
    let trail = browser.get("/dashboard/audit").await.page();
    assert!(
        trail.contains("POST /dashboard/sandboxes/{id}/kill"),
        "{trail}"
    );
    assert!(trail.contains("key default") && trail.contains(sandbox.as_str()));
    assert!(trail.contains(r#"class="refused">403"#));
    let about = format!("/dashboard/audit?target={sandbox}");
    assert_eq!(rows(&browser.get(&about).await.page()), 2);
    let none = browser.get("/dashboard/audit?actor=admin").await.page();
    assert!(none.contains("Nothing of that kind"));
}

#[tokio::test]
async fn charts_are_drawn_once_there_are_figures() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let browser = world.browser(&world.key).await;
    let path = format!("/dashboard/sandboxes/{sandbox}/metrics?minutes=60");
    let before = browser.get(&path).await.page();
    assert!(before.contains("No figures") && !before.contains("<svg"));
    world.node.use_cpu(sandbox.as_str()).await;
    let (browser, path) = (&browser, &path);
    until("the figures are there", || async move {
        browser.get(path).await.page().contains("<svg")
    })
    .await;
    let after = browser.get(path).await.page();
    assert_eq!(after.matches("<figure>").count(), 3);
    assert!(after.contains("50 % of 100 %") && after.contains("an hour ago"));
    let list = browser.get("/dashboard").await.page();
    assert!(list.contains("50 % of 2"), "{list}");
}
