//! People in several teams, and the administrator of all of them.

use http::StatusCode;
use warren_control::By;
use warren_types::{KeyScope, Role};

use crate::world::{ADMIN, World};

/// The teams that the chooser of a page offers.
fn offered(page: &str) -> usize {
    let chooser = page
        .split(r#"aria-label="Team">"#)
        .nth(1)
        .unwrap_or_default();
    let chooser = chooser.split("</select>").next().unwrap();
    chooser.matches("<option").count()
}

#[tokio::test]
async fn a_person_in_two_teams_goes_from_one_to_the_other() {
    let world = World::new().await;
    let (first, second) = (world.team.id, world.another_team("Second").await);
    let (here, there) = (world.sandbox().await, world.sandbox_with(second, &[]).await);
    let places = [(first, Role::Member), (second, Role::Viewer)];
    let (_, token) = world.person(&places).await;
    let browser = world.browser(&token).await;
    let elsewhere = world.browser(&token).await;
    let page = browser.get("/dashboard").await.page();
    assert_eq!(offered(&page), 2);
    assert!(page.contains(here.as_str()) && !page.contains(there.as_str()));
    let old_form = browser.csrf().await;

    let to = second.to_string();
    browser
        .post("/dashboard/switch", &[("team", &to)])
        .await
        .leads_to("/dashboard");
    let page = browser.get("/dashboard").await.page();
    assert!(page.contains(there.as_str()) && !page.contains(here.as_str()));
    assert!(page.contains(r#"class="reads""#), "a viewer of that team");
    let team = browser.get("/dashboard/team").await.page();
    assert!(team.contains("Team Second"));

    // A page of the first team that was left open does nothing now, and shows nothing new.
    let kill = format!("/dashboard/sandboxes/{here}/kill");
    let stale = browser.post_with(&kill, Some(&old_form), &[]).await;
    assert_eq!(stale.status, StatusCode::FORBIDDEN);
    let headers = [("x-page-team", first.to_string())];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let refreshed = browser.get_with("/dashboard", &headers).await;
    assert_eq!(refreshed.status, StatusCode::CONFLICT);

    // The other browser has not moved.
    let page = elsewhere.get("/dashboard").await.page();
    assert!(page.contains(here.as_str()));
    // Those who only read a team can leave it for another.
    let to = first.to_string();
    browser
        .post("/dashboard/switch", &[("team", &to)])
        .await
        .leads_to("/dashboard");
    assert!(
        browser
            .get("/dashboard")
            .await
            .page()
            .contains(here.as_str())
    );
}

#[tokio::test]
async fn nobody_goes_to_a_team_that_is_not_theirs() {
    let world = World::new().await;
    let other = world.another_team("Other").await.to_string();
    let (_, token) = world.person(&[(world.team.id, Role::Admin)]).await;
    for credential in [world.key.clone(), token] {
        let browser = world.browser(&credential).await;
        for team in [other.as_str(), "", "nonsense"] {
            let answer = browser.post("/dashboard/switch", &[("team", team)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{team}");
        }
        let page = browser.get("/dashboard").await.page();
        assert_eq!(offered(&page), 0, "there is nothing to choose");
        assert!(page.contains(&world.team.name));
    }
}

#[tokio::test]
async fn whoever_is_taken_out_of_a_team_is_back_in_their_own() {
    let world = World::new().await;
    let second = world.another_team("Second").await;
    let places = [(world.team.id, Role::Member), (second, Role::Member)];
    let (user, token) = world.person(&places).await;
    let browser = world.browser(&token).await;
    let to = second.to_string();
    browser
        .post("/dashboard/switch", &[("team", &to)])
        .await
        .leads_to("/dashboard");
    let form = browser.csrf().await;
    let removed = world.control.member_remove(&By::SYSTEM, second, user);
    removed.await.unwrap();
    let fields = [("template", "base"), ("seconds", "60")];
    let late = browser
        .post_with("/dashboard/sandboxes", Some(&form), &fields)
        .await;
    late.leads_to("/dashboard");
    assert_eq!(
        world.node.count(),
        0,
        "nothing is made in the team that is left"
    );
    let page = browser.get("/dashboard/team").await.page();
    assert!(page.contains(&format!("Team {}", world.team.name)));
}

#[tokio::test]
async fn a_person_has_access_tokens_and_a_key_has_none() {
    let world = World::new().await;
    let (_, token) = world.person(&[(world.team.id, Role::Member)]).await;
    let browser = world.browser(&token).await;
    let fields = [("name", "laptop"), ("scope", "read"), ("days", "3")];
    let page = browser.post("/dashboard/tokens", &fields).await.page();
    let made = page.split(r#"<code id="made">"#).nth(1).unwrap();
    let made = made.split('<').next().unwrap().to_owned();
    assert!(made.starts_with("sk_e2b_"), "{made}");
    let reader = world.browser(&made).await;
    let list = reader.get("/dashboard/tokens").await.page();
    assert!(
        list.contains("laptop") && !list.contains(&made),
        "shown once only"
    );
    let delete = list
        .split("/dashboard/tokens/")
        .find(|rest| rest.contains("> laptop</span>"));
    let id = delete.unwrap().split('/').next().unwrap().to_owned();
    let path = format!("/dashboard/tokens/{id}/delete");
    assert_eq!(reader.post(&path, &[]).await.status, StatusCode::FORBIDDEN);
    browser.post(&path, &[]).await.leads_to("/dashboard/tokens");
    assert_eq!(reader.get("/dashboard").await.status, StatusCode::SEE_OTHER);
    let by_key = world.browser(&world.key).await;
    let refused = by_key.get("/dashboard/tokens").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_administrator_makes_teams_and_puts_people_in_them() {
    let world = World::new().await;
    let browser = world.browser(ADMIN).await;
    let fields = [("name", "Blue Team"), ("slug", ""), ("limit", "7")];
    let page = browser
        .post("/dashboard/server/teams", &fields)
        .await
        .page();
    let key = page.split(r#"<code id="made">"#).nth(1).unwrap();
    let key = key.split('<').next().unwrap().to_owned();
    let theirs = world.browser(&key).await;
    assert!(
        theirs
            .get("/dashboard/team")
            .await
            .page()
            .contains("Team Blue Team")
    );
    let team = world.control.team_find("blue-team").await.unwrap();
    assert_eq!(team.max_sandboxes, Some(7));

    let to = team.id.to_string();
    browser
        .post("/dashboard/switch", &[("team", &to)])
        .await
        .leads_to("/dashboard");
    let fields = [("email", "ada@example.com"), ("role", "viewer")];
    let page = browser
        .post("/dashboard/team/members", &fields)
        .await
        .page();
    let token = page.split(r#"<code id="made">"#).nth(1).unwrap();
    let token = token.split('<').next().unwrap().to_owned();
    let ada = world.browser(&token).await;
    assert!(
        ada.get("/dashboard")
            .await
            .page()
            .contains(r#"class="reads""#)
    );
    let fields = [("email", "ada@example.com"), ("role", "admin")];
    browser
        .post("/dashboard/team/members", &fields)
        .await
        .leads_to("/dashboard/team");
    assert!(
        !ada.get("/dashboard")
            .await
            .page()
            .contains(r#"class="reads""#)
    );
    let user = world.control.user_find("ada@example.com").await.unwrap().id;
    let remove = format!("/dashboard/team/members/{user}/remove");
    browser.post(&remove, &[]).await.leads_to("/dashboard/team");
    assert_eq!(ada.get("/dashboard").await.status, StatusCode::SEE_OTHER);

    let change = format!("/dashboard/server/teams/{to}");
    let fields = [("name", "Navy"), ("state", "blocked"), ("limit", "")];
    browser
        .post(&change, &fields)
        .await
        .leads_to("/dashboard/server");
    let refused = theirs.post("/dashboard/volumes", &[("name", "x")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let team = world.control.team_find("blue-team").await.unwrap();
    assert_eq!((team.name.as_str(), team.max_sandboxes), ("Navy", None));
    browser
        .post(&format!("{change}/delete"), &[])
        .await
        .leads_to("/dashboard/server");
    assert!(world.control.team_find("blue-team").await.is_err());
    assert_eq!(theirs.get("/dashboard").await.status, StatusCode::SEE_OTHER);
    // Whose team is gone goes on in the first one.
    let next = browser.get("/dashboard").await;
    if next.status == StatusCode::SEE_OTHER {
        next.leads_to("/dashboard");
    }
    assert!(
        browser
            .get("/dashboard/team")
            .await
            .page()
            .contains("Team default")
    );
}

#[tokio::test]
async fn ssh_keys_are_added_and_deleted() {
    let world = World::new().await;
    let browser = world.browser(&world.key).await;
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@host";
    const HERE: &str = "/dashboard/ssh-keys";
    browser
        .post(HERE, &[("key", key), ("name", "")])
        .await
        .leads_to(HERE);
    let list = browser.get(HERE).await.page();
    assert!(
        list.contains("me@host") && list.contains("SHA256:"),
        "{list}"
    );
    let again = browser.post(HERE, &[("key", key)]).await;
    assert!(again.text.contains("added already"), "{}", again.text);
    let other = world.another_team("Other").await;
    let other = world.key_of(other, KeyScope::Full).await;
    let other = world.browser(&other).await;
    let id = list.split("/dashboard/ssh-keys/").nth(1).unwrap();
    let delete = format!("{HERE}/{}/delete", id.split('/').next().unwrap());
    assert_eq!(other.post(&delete, &[]).await.status, StatusCode::NOT_FOUND);
    browser.post(&delete, &[]).await.leads_to(HERE);
    assert!(browser.get(HERE).await.page().contains("No SSH keys yet"));
}
