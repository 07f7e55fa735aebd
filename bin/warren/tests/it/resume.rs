//! Transfers that break off.

use warren_service::Tasks;
use warren_template::build::Source;

use crate::images::{ARCH, entry};
use crate::registry::{Layer, Registry};
use crate::support::{Stand, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_breaks_off_goes_on_from_there() {
    let tasks = Tasks::new();
    let text = "0123456789abcdef".repeat(16 * 1024);
    let mut registries = Vec::new();
    for ranges in [true, false] {
        let registry = Registry::cutting(100_000, ranges);
        // Another content each, so that nothing is there already.
        let content = format!("{ranges}{text}");
        let layer = Layer::plain(entry("etc/large", tar::EntryType::Regular, &content));
        registry.image("team/image", vec![layer], &[], ARCH);
        let address = registry.clone().serve(&tasks).await;
        registries.push((registry, address));
    }
    let insecure = registries.iter().map(|(_, address)| address.to_string());
    let stand = Stand::start_with(insecure.collect()).await;
    for (registry, address) in registries {
        let mut request = request(Vec::new());
        request.source = Source::Image {
            reference: format!("{address}/team/image"),
            credentials: None,
        };
        let failure = stand.build(request).await.unwrap_err();
        // All of it has come, and is no system.
        let pulled = "error waiting for provisioning sandbox";
        assert!(failure.message.starts_with(pulled), "{failure}");
        assert!(registry.parts_wanted() >= 2);
    }
    tasks.stop(std::time::Duration::from_secs(5)).await;
    stand.stop().await;
}
