//! Keeps files in a volume that sandboxes mount, one after the other.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use warren_client::{Client, Config, NewSandbox, VolumeMount};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let volume = client
        .create_volume(&format!("example-{}", std::process::id()))
        .await?;
    volume.write("/notes/first.txt", "from outside\n").await?;

    let new = NewSandbox {
        template_id: "base".into(),
        timeout: Some(120),
        volume_mounts: Some(vec![VolumeMount {
            name: volume.name().into(),
            path: "/mnt/data".into(),
            read_only: false,
        }]),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;
    let line = "cat /mnt/data/notes/first.txt; echo from inside > /mnt/data/second.txt";
    let output = sandbox.commands().run(line).await?;
    assert_eq!(output.stdout_text(), "from outside\n");
    sandbox.kill().await?;

    assert_eq!(volume.read("/second.txt").await?, "from inside\n");
    for entry in volume.list("/", 2).await? {
        println!("{} {:o} {}", entry.path, entry.mode, entry.size);
    }
    assert!(volume.remove("/notes").await?);
    assert!(volume.info("/notes/first.txt").await?.is_none());

    assert!(client.delete_volume(volume.id()).await?);
    Ok(())
}
