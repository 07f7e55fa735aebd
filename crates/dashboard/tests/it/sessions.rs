//! How sessions begin and end.

use axum::body::Body;
use http::{Request, StatusCode};
use warren_control::By;
use warren_types::KeyScope;

use crate::world::{Browser, World};

async fn sign_in(world: &World, origin: &str, key: &str, then: &str) -> crate::world::Answer {
    let form = serde_urlencoded::to_string([("key", key), ("then", then)]).unwrap();
    let request = Request::post("/dashboard/sign-in")
        .header("host", "here.test")
        .header("origin", origin)
        .header("content-type", "application/x-www-form-urlencoded");
    world.send(request.body(form.into()).unwrap()).await
}

async fn is_in(browser: &Browser<'_>) -> bool {
    browser.get("/dashboard").await.status == StatusCode::OK
}

#[tokio::test]
async fn the_cookie_is_for_our_pages_only_and_holds_no_key() {
    let world = World::new().await;
    for (origin, is_secure) in [("http://here.test", false), ("https://here.test", true)] {
        let answer = sign_in(&world, origin, &world.key, "/dashboard/usage").await;
        answer.leads_to("/dashboard/usage");
        let cookie = answer.header("set-cookie");
        for flag in ["HttpOnly", "SameSite=Strict", "Path=/dashboard"] {
            assert!(cookie.contains(flag), "{cookie}");
        }
        assert_eq!(cookie.contains("Secure"), is_secure, "{cookie}");
        assert!(!cookie.contains(&world.key));
    }
}

#[tokio::test]
async fn what_is_no_key_opens_nothing() {
    let world = World::new().await;
    let long = "e2b_".to_owned() + &"0".repeat(10_000);
    for key in ["", "nonsense", "e2b_", "sk_e2b_00", "e2b_00ff", &long] {
        let answer = sign_in(&world, "http://here.test", key, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{key}");
        assert_eq!(answer.header("set-cookie"), "");
        assert!(answer.text.contains(r#"role="alert""#));
    }
    for then in ["https://evil.example", "//evil.example", "/elsewhere"] {
        let answer = sign_in(&world, "http://here.test", &world.key, then).await;
        answer.leads_to("/dashboard");
    }
}

#[tokio::test]
async fn a_session_ends_with_its_key_and_by_signing_out() {
    let world = World::new().await;
    let key = world.key_of(world.team.id, KeyScope::Full).await;
    let (one, other) = (world.browser(&key).await, world.browser(&key).await);
    one.post("/dashboard/sign-out", &[])
        .await
        .leads_to("/dashboard/sign-in");
    assert!(!is_in(&one).await && is_in(&other).await);
    let caller = world.control.authenticate_key(&key).await.unwrap();
    let id = caller.key.unwrap();
    let deleted = world.control.key_delete(&By::SYSTEM, world.team.id, id);
    deleted.await.unwrap();
    assert!(!is_in(&other).await);
}

#[tokio::test]
async fn errors_stand_in_the_surroundings_of_other_pages() {
    let world = World::new().await;
    let browser = world.browser(&world.key).await;
    let missing = browser.get("/dashboard/webhooks/nosuch").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.text.contains("Sign out") && missing.text.contains("not found"));
    let bare = Request::get("/dashboard/cli?state=x&error=gone");
    let bare = world.send(bare.body(Body::empty()).unwrap()).await;
    assert!(bare.text.contains("gone") && !bare.text.contains("Sign out"));
}
