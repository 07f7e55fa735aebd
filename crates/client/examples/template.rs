//! Builds a template and makes a sandbox of it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use warren_client::{BuildOptions, Client, Config, CopyOptions, NewSandbox, Ready, Template};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let context = tempfile::tempdir()?;
    std::fs::write(context.path().join("index.html"), "hello from a template\n")?;
    let name = format!("example-{}", std::process::id());

    let template = Template::from_template("base")
        .context(context.path())
        .make_dirs(["/home/user/site"])
        .copy("*.html", "/home/user/site/", CopyOptions::default())
        .env([("PORT", "8000")])
        .workdir("/home/user/site")
        .run("wc -c index.html > size")
        .start("python3 -m http.server 8000", Ready::port(8000));
    let options = BuildOptions {
        memory_mib: Some(512),
        ..BuildOptions::new(&name)
    };
    let build = client
        .build(&template, &options, |line| println!("{}", line.message))
        .await?;
    println!("built {} of {}", build.build_id, build.template_id);
    assert!(client.template_exists(&name).await?);

    let new = NewSandbox {
        template_id: name.clone(),
        timeout: Some(60),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;
    // It serves already: a sandbox is made when its template's ready command has succeeded.
    let page = sandbox
        .commands()
        .run("curl -s localhost:8000; cat size")
        .await?;
    assert_eq!(page.stdout_text(), "hello from a template\n22 index.html\n");
    sandbox.kill().await?;

    client.assign_tags(&name, &["stable"]).await?;
    let tags = client.template_tags(&name).await?.expect("it exists");
    assert!(tags.iter().any(|tag| tag == "stable"));
    client.remove_tags(&name, &["stable"]).await?;

    assert!(client.delete_template(&build.template_id).await?);
    Ok(())
}
