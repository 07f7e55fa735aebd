//! Reads, writes and watches files.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use warren_client::{Change, Client, Config, FileType, NewSandbox};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let new = NewSandbox {
        template_id: "base".into(),
        timeout: Some(120),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;
    let files = sandbox.files();

    files.write("project/main.py", "print(1)").await?;
    assert_eq!(files.read("/home/user/project/main.py").await?, "print(1)");
    let missing = files.read("missing").await;
    assert!(missing.is_err_and(|error| error.is_not_found()));

    assert!(files.make_dir("project/data").await?);
    files.rename("project/main.py", "project/old.py").await?;
    for entry in files.list("project", 1).await? {
        let kind = match entry.r#type() {
            FileType::Directory => "directory",
            _ => "file",
        };
        println!("{} {kind} of {} bytes", entry.path, entry.size);
    }
    let old = files.info("project/old.py").await?.expect("it is there");
    assert_eq!((old.size, old.owner.as_str()), (8, "user"));
    files.remove("project/old.py").await?;
    assert!(!files.exists("project/old.py").await?);

    // Large ones go through piece by piece, whatever gives or takes them.
    let source = tokio::io::AsyncReadExt::take(tokio::io::repeat(b'x'), 10_000_000);
    files.upload("/tmp/large", source).await?;
    let mut download = files.download("/tmp/large").await?;
    let mut length = 0;
    while let Some(piece) = download.next().await? {
        length += piece.len();
    }
    assert_eq!(length, 10_000_000);

    let mut watch = files.watch("project", true).await?;
    files.write("project/data/new.txt", "x").await?;
    let event = watch.next().await?.expect("the sandbox runs on");
    assert_eq!(event.name, "data/new.txt");
    assert_eq!(event.change, Change::Created);
    drop(watch);

    let link = sandbox.download_url("project/data/new.txt", None, Some(Duration::from_secs(60)))?;
    println!("anybody may read it at {link}");

    files.as_user("root").write("/etc/motd", "welcome").await?;
    sandbox.kill().await?;
    Ok(())
}
