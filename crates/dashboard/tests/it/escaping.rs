//! Text of users is text in every page.

use jiff::Timestamp;
use warren_control::{By, NewKey, NewWebhook};
use warren_types::{EventKind, LogEntry, LogLevel, Role};

use crate::world::{Answer, World};

const HOSTILE: &str = r#"'"><script>alert(1)</script><img/src=x/onerror=alert(2)>"#;

fn is_text_only(answer: &Answer, what: &str) {
    for markup in ["<script>alert", "<img/src", r#"'">"#] {
        assert!(!answer.text.contains(markup), "{what}: {markup}");
    }
}

#[tokio::test]
async fn what_users_and_sandboxes_say_is_no_markup() {
    let world = World::new().await;
    let (by, team) = (By::SYSTEM, world.another_team(HOSTILE).await);
    let caller = world.caller(team).await;
    let sandbox = world.sandbox_with(team, &[(HOSTILE, HOSTILE)]).await;
    let entry = LogEntry {
        timestamp: Timestamp::now(),
        level: LogLevel::Error,
        message: HOSTILE.to_owned(),
        fields: [(HOSTILE.to_owned(), HOSTILE.to_owned())].into(),
    };
    world.node.log(sandbox.as_str(), entry);
    let control = &world.control;
    let made = control.key_create(&by, team, NewKey::named(HOSTILE)).await;
    made.unwrap();
    let webhook = NewWebhook {
        kinds: EventKind::ALL.map(|kind| kind.as_str().to_owned()).to_vec(),
        name: HOSTILE.to_owned(),
        url: format!("https://example.com/?{}", HOSTILE.replace(' ', "")),
        enabled: false,
        secret: None,
    };
    let (webhook, _) = control.webhook_create(&caller, webhook).await.unwrap();
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    control
        .ssh_key_add(&caller, ssh, Some(HOSTILE))
        .await
        .unwrap();
    let email = format!("{}@x", HOSTILE.replace(' ', ""));
    let user = control.user_create(&by, &email).await.unwrap().id;
    let joined = control.member_set(&by, team, user, Role::Admin, true).await;
    joined.unwrap();
    let token = control
        .token_create(&by, user, NewKey::named(HOSTILE))
        .await;
    let token = token.unwrap().clear;

    let browser = world.browser(token.expose()).await;
    let pages = [
        ("/dashboard".to_owned(), 2),
        (format!("/dashboard/sandboxes/{sandbox}"), 1),
        (format!("/dashboard/sandboxes/{sandbox}/facts"), 2),
        (format!("/dashboard/sandboxes/{sandbox}/logs"), 3),
        (format!("/dashboard/sandboxes/{sandbox}/events"), 0),
        ("/dashboard/team".to_owned(), 3),
        ("/dashboard/ssh-keys".to_owned(), 1),
        ("/dashboard/tokens".to_owned(), 1),
        ("/dashboard/audit".to_owned(), 0),
        ("/dashboard/events".to_owned(), 0),
        ("/dashboard/webhooks".to_owned(), 1),
        (format!("/dashboard/webhooks/{}", webhook.id), 2),
    ];
    for (path, times) in pages {
        let answer = browser.get(&path).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}: {}", answer.text);
        is_text_only(&answer, &path);
        let shown = answer.text.matches("&#60;script&#62;alert").count();
        assert!(shown >= times, "{path} shows it {shown} times");
    }
    let by_key = world.browser(&world.key).await;
    let server = by_key.get("/dashboard/server").await;
    is_text_only(&server, "the list of teams");
    assert!(server.text.contains("&#60;script&#62;alert"));
}

#[tokio::test]
async fn what_an_address_says_is_no_markup() {
    let world = World::new().await;
    let browser = world.browser(&world.key).await;
    let sandbox = world.sandbox().await;
    let encoded = serde_urlencoded::to_string([("", HOSTILE)]).unwrap();
    let encoded = encoded.trim_start_matches('=');
    for path in [
        format!("/dashboard?label=a%3D{encoded}&template=base"),
        format!("/dashboard?label={encoded}"),
        format!("/dashboard?template={encoded}"),
        format!("/dashboard?state={encoded}"),
        format!("/dashboard?after={encoded}"),
        format!("/dashboard/sandboxes/{encoded}"),
        format!("/dashboard/sandboxes/{sandbox}/ended?search={encoded}&source={encoded}"),
        format!("/dashboard/sandboxes/{sandbox}/logs?since={encoded}"),
        format!("/dashboard/templates/{encoded}"),
        format!("/dashboard/templates/{encoded}/builds/{encoded}"),
        format!("/dashboard/events?sandbox={encoded}"),
        format!("/dashboard/events?kind={encoded}"),
        format!("/dashboard/audit?action={encoded}&target={encoded}&actor={encoded}"),
        format!("/dashboard/audit?after={encoded}"),
        format!("/dashboard/cli?next={encoded}"),
        format!("/dashboard/cli?state=error&error={encoded}"),
        format!("/dashboard/cli?state=success&email={encoded}"),
        format!("/dashboard/sign-in?then={encoded}"),
        format!("/dashboard/volumes/{encoded}?path={encoded}"),
        format!("/dashboard/usage?hours={encoded}"),
    ] {
        let answer = browser.get(&path).await;
        assert!(!answer.status.is_server_error(), "{path}: {}", answer.text);
        is_text_only(&answer, &path);
    }
}

#[tokio::test]
async fn a_value_that_was_given_in_secret_is_on_no_page() {
    let world = World::new().await;
    let browser = world.browser(&world.key).await;
    const VALUE: &str = "a-value-that-nobody-sees";
    let fields = [("name", "kept"), ("value", VALUE)];
    browser
        .post("/dashboard/secrets", &fields)
        .await
        .leads_to("/dashboard/secrets");
    let fields = [
        ("name", "kept"),
        ("value", "another-value-that-nobody-sees"),
    ];
    let replaced = browser.post("/dashboard/secrets/replace", &fields).await;
    replaced.leads_to("/dashboard/secrets");
    let again = browser.post("/dashboard/secrets", &fields).await;
    for answer in [browser.get("/dashboard/secrets").await, again] {
        assert!(!answer.text.contains("value-that-nobody-sees"));
    }
    let list = browser.get("/dashboard/secrets").await.page();
    assert!(
        list.contains(">kept<") && list.contains(">2</td>"),
        "{list}"
    );
    let trail = browser.get("/dashboard/audit").await.page();
    assert!(trail.contains("POST /dashboard/secrets/replace"));
    assert!(!trail.contains("value-that-nobody-sees"));
}
