//! Sandboxes for the steps of template builds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use warren_cluster::{
    BuildHost, BuildImage, BuildSandbox, CommitError, Connection, NodeError, Written,
};
use warren_runtime::{Runtime, Sandbox};
use warren_types::NetworkPolicy;

use crate::node::Node;
use crate::sandbox::Booted;

#[async_trait]
impl<R: Runtime> BuildHost for Node<R> {
    async fn open_build(&self, image: &BuildImage) -> Result<Box<dyn BuildSandbox>, NodeError> {
        if self.is_stopping() {
            return Err(NodeError::Stopping);
        }
        let policy = NetworkPolicy::default();
        let booted = match image.capture {
            None => self.booter().boot(image, policy).await?,
            Some(_) => {
                let image = BuildImage {
                    start: None,
                    ..image.clone()
                };
                let from = self.context.captures.build(image.build_id);
                let booter = self.booter();
                booter
                    .restore(&image, policy, &from, None, Vec::new())
                    .await?
            }
        };
        // Each step brings its own variables.
        let none = BTreeMap::new();
        booted.init(image, &none, self.events_address()).await?;
        Ok(Box::new(StepSandbox { booted }))
    }

    fn layers_in_use(&self) -> io::Result<BTreeSet<String>> {
        self.context.ledger.layers()
    }
}

/// A booted sandbox that is not on record: a server that starts again sweeps it.
#[derive(Debug)]
struct StepSandbox<S: Sandbox> {
    booted: Booted<S>,
}

#[async_trait]
impl<S: Sandbox> BuildSandbox for StepSandbox<S> {
    async fn dial(&self, port: u16) -> io::Result<Box<dyn Connection>> {
        let stream = self.booted.sandbox().dialer().dial(port).await?;
        Ok(Box::new(stream))
    }

    async fn died(&self) {
        self.booted.sandbox().exited().await;
    }

    async fn commit(&self, into: PathBuf) -> Result<Written, CommitError> {
        let committed = self.booted.sandbox().commit(into).await;
        let committed = committed.map_err(|error| CommitError(Box::new(error)))?;
        Ok(Written {
            entries: committed.entries,
            bytes: committed.bytes,
        })
    }

    async fn end(self: Box<Self>) {
        self.booted.discard().await;
    }
}
