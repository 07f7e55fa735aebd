//! Every route with every kind of visitor, from the table that the router is made of.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use warren_control::{By, TeamChange};
use warren_dashboard::{Access, Route, routes};
use warren_types::{KeyScope, Role, TeamState};

use crate::world::{ADMIN, World};

/// A path with something for each parameter.
fn filled(route: &Route, id: &str) -> String {
    let parts: Vec<_> = route
        .path
        .split('/')
        .map(|part| if part.starts_with('{') { id } else { part })
        .collect();
    parts.join("/")
}

fn of(kinds: &[Access]) -> Vec<Route> {
    let all = routes().into_iter();
    let found: Vec<_> = all.filter(|route| kinds.contains(&route.access)).collect();
    assert!(!found.is_empty());
    found
}

const CHANGES: &[Access] = &[
    Access::Own,
    Access::Change,
    Access::Deletion,
    Access::Operate,
];
const PAGES: &[Access] = &[Access::Page, Access::Part];

#[test]
fn pages_are_read_and_changes_are_posted() {
    for route in routes() {
        let is_change = CHANGES.contains(&route.access);
        let expected = if is_change { Method::POST } else { Method::GET };
        if route.access != Access::Open {
            assert_eq!(route.method, expected, "{}", route.path);
        }
    }
    // Nothing else is open to those who are not signed in.
    let open: Vec<_> = of(&[Access::Open]).into_iter().map(|r| r.path).collect();
    assert_eq!(
        open,
        [
            "/",
            "/dashboard/assets/{name}",
            "/dashboard/sign-in",
            "/dashboard/sign-in",
            "/dashboard/sign-out",
            "/api/cli",
            "/dashboard/oauth/token",
            "/dashboard/oauth/revoke",
        ]
    );
}

#[tokio::test]
async fn whoever_is_not_signed_in_is_led_to_the_sign_in() {
    let world = World::new().await;
    let ours = [PAGES, CHANGES].concat();
    for cookie in ["", "warren_session=0000", "warren_session="] {
        for route in of(&ours) {
            let request = Request::builder()
                .method(&route.method)
                .uri(filled(&route, "x"))
                .header("cookie", cookie);
            let answer = world.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{route:?}");
            let to = answer.header("location");
            assert!(to.starts_with("/dashboard/sign-in"), "{route:?}: {to}");
            assert!(answer.text.is_empty(), "{route:?}");
        }
    }
}

#[tokio::test]
async fn every_change_wants_the_token_of_its_own_session() {
    let world = World::new().await;
    let browser = world.browser(ADMIN).await;
    let other = world.browser(ADMIN).await.csrf().await;
    let before = world.node.count();
    for route in of(CHANGES) {
        for forged in [None, Some(""), Some("0"), Some(other.as_str())] {
            let path = filled(&route, "x");
            let answer = browser.post_with(&path, forged, &[("name", "x")]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route:?} {forged:?}");
            assert!(answer.text.contains("out of date"), "{route:?}");
        }
    }
    assert_eq!(world.node.count(), before);
}

#[tokio::test]
async fn whoever_only_reads_changes_nothing_and_sees_every_page() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let (_, viewer) = world.person(&[(world.team.id, Role::Viewer)]).await;
    let key = world.key_of(world.team.id, KeyScope::Read).await;
    for credential in [key, viewer] {
        let browser = world.browser(&credential).await;
        for route in of(&[Access::Change, Access::Deletion]) {
            let answer = browser.post(&filled(&route, sandbox.as_str()), &[]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route:?}");
            assert!(answer.text.contains("may only read"), "{}", answer.text);
        }
        for route in of(PAGES) {
            let answer = browser.get(&filled(&route, sandbox.as_str())).await;
            assert!(!answer.status.is_server_error(), "{route:?}");
        }
        let page = browser
            .get(&format!("/dashboard/sandboxes/{sandbox}"))
            .await;
        let page = page.page();
        assert!(page.contains(r#"data-token="""#), "no token is told");
        assert!(page.contains(r#"class="reads""#));
    }
    assert_eq!(world.node.count(), 1);
}

#[tokio::test]
async fn only_the_administrator_operates_the_server() {
    let world = World::new().await;
    let (_, person) = world.person(&[(world.team.id, Role::Admin)]).await;
    for credential in [world.key.clone(), person] {
        let browser = world.browser(&credential).await;
        for route in of(&[Access::Operate]) {
            let answer = browser.post(&filled(&route, "x"), &[]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route:?}");
        }
    }
    let other = world.another_team("Other").await;
    let key = world.key_of(other, KeyScope::Full).await;
    let browser = world.browser(&key).await;
    let server = browser.get("/dashboard/server").await;
    assert_eq!(server.status, StatusCode::NOT_FOUND);
    assert!(!server.text.contains(">Server</a>"));
}

#[tokio::test]
async fn a_blocked_team_may_delete_and_nothing_else() {
    let world = World::new().await;
    let team = world.another_team("Blocked").await;
    let key = world.key_of(team, KeyScope::Full).await;
    let browser = world.browser(&key).await;
    let sandbox = world.sandbox_with(team, &[]).await;
    let change = TeamChange {
        state: Some(TeamState::Blocked),
        ..TeamChange::default()
    };
    let blocked = world.control.team_update(&By::SYSTEM, team, change).await;
    blocked.unwrap();
    for route in of(&[Access::Change]) {
        let answer = browser.post(&filled(&route, "x"), &[]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route:?}");
    }
    let kill = format!("/dashboard/sandboxes/{sandbox}/kill");
    browser.post(&kill, &[]).await.leads_to("/dashboard");
    assert_eq!(world.node.count(), 0);
}

#[tokio::test]
async fn what_another_site_asks_for_is_refused() {
    let world = World::new().await;
    let browser = world.browser(ADMIN).await;
    let csrf = browser.csrf().await;
    let posts = routes().into_iter().filter(|r| r.method == Method::POST);
    for route in posts {
        for origin in ["https://evil.example", "null", "http://here.test:81"] {
            let request = Request::post(filled(&route, "x"))
                .header("host", "here.test")
                .header("origin", origin)
                .header("cookie", &browser.cookie)
                .header("x-csrf-token", &csrf);
            let answer = world.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route:?} {origin}");
            assert!(answer.text.contains("another site"), "{route:?}");
        }
    }
}

#[tokio::test]
async fn every_answer_bears_the_headers_that_protect_it() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    for route in routes() {
        // One of them signs out.
        let browser = world.browser(ADMIN).await;
        let request = Request::builder()
            .method(&route.method)
            .uri(filled(&route, sandbox.as_str()))
            .header("cookie", &browser.cookie);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        let policy = answer.header("content-security-policy");
        let directives: Vec<_> = policy.split(';').map(str::trim).collect();
        for wanted in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(directives.contains(&wanted), "{route:?}: {policy}");
        }
        assert!(!policy.contains("connect-src *"), "{route:?}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{route:?}");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        if !route.path.contains("assets") {
            assert_eq!(answer.header("cache-control"), "no-store", "{route:?}");
        }
    }
    let browser = world.browser(ADMIN).await;
    // Only the page of a sandbox speaks to a host that is not ours: its own agent.
    let page = browser
        .get(&format!("/dashboard/sandboxes/{sandbox}"))
        .await;
    let policy = page.header("content-security-policy").to_owned();
    let agent = format!("connect-src 'self' 49983-{sandbox}.sandboxes.test;");
    assert!(policy.contains(&agent), "{policy}");
}

#[tokio::test]
async fn what_another_team_has_is_not_there() {
    let world = World::new().await;
    let other = world.another_team("Other").await;
    let key = world.key_of(other, KeyScope::Full).await;
    let sandbox = world.sandbox().await;
    let browser = world.browser(&key).await;
    for part in ["", "/ended", "/facts", "/metrics", "/logs"] {
        let path = format!("/dashboard/sandboxes/{sandbox}{part}");
        assert_eq!(
            browser.get(&path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    for action in ["kill", "pause", "resume", "fork", "snapshot"] {
        let path = format!("/dashboard/sandboxes/{sandbox}/{action}");
        let answer = browser.post(&path, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(world.node.count(), 1);
    let own = world.browser(&world.key).await;
    let keys = own.get("/dashboard/team").await.page();
    let at = keys.find("/dashboard/keys/").unwrap();
    let path = keys[at..].split('"').next().unwrap();
    let delete = path.replace("rename", "delete");
    assert_eq!(
        browser.post(&delete, &[]).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(own.get("/dashboard/team").await.status, StatusCode::OK);
    let list = browser.get("/dashboard").await.page();
    assert!(!list.contains(sandbox.as_str()));
}
