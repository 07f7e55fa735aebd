//! Decides what a sandbox may reach, and keeps a secret outside of it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;

use warren_client::{
    Client, Config, NetworkRule, NetworkSettings, NetworkTransform, NetworkUpdate, NewSandbox,
};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let name = format!("example-{}", std::process::id());
    let secret = client.create_secret(&name, "never inside").await?;

    // Requests to the host get the header; the sandbox does not see its value.
    let bearer = NetworkTransform {
        headers: BTreeMap::from([(
            "Authorization".into(),
            format!("Bearer ${{e2b.secrets.{name}}}"),
        )]),
    };
    let rule = NetworkRule {
        transform: Some(bearer),
    };
    let new = NewSandbox {
        template_id: "base".into(),
        timeout: Some(120),
        network: Some(NetworkSettings {
            allow_out: Some(vec!["api.example.com".into()]),
            deny_out: Some(vec!["0.0.0.0/0".into()]),
            rules: Some(BTreeMap::from([("api.example.com".into(), vec![rule])])),
            ..NetworkSettings::default()
        }),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;

    sandbox
        .set_network(&NetworkUpdate {
            allow_internet_access: Some(false),
            ..NetworkUpdate::default()
        })
        .await?;
    println!("{} reaches nothing any more", sandbox.id());

    sandbox.kill().await?;
    assert!(client.delete_secret(&secret.secret_id).await?);
    Ok(())
}
