//! A finished build as a container image.

use std::collections::BTreeMap;
use std::fs::File;

use warren_cluster::BuildImage;

use super::engine::Engine;
use super::port::ExportError;
use super::steps::unnamed;
use crate::layers::LayerError;
use crate::oci::{About, export};

/// Labels that tell what an image has no other place for: from which template it was made,
/// and its commands.
const MADE: &str = "warren.template";
const START: &str = "warren.start-command";
const READY: &str = "warren.ready-command";

impl Engine {
    /// See [`Builder::export`](super::Builder::export).
    pub(super) async fn export_image(
        &self,
        image: &BuildImage,
        tag: &str,
    ) -> Result<File, ExportError> {
        if image.capture.is_some() {
            return Err(ExportError::Snapshot);
        }
        let running = self.running.clone().read_owned().await;
        let stores = [&self.config.layers, &self.config.shared];
        let mut layers = Vec::new();
        for digest in &image.layers {
            let found = stores.iter().map(|store| store.get(digest));
            let found: Result<Vec<_>, LayerError> = found.collect();
            let path = found?.into_iter().flatten().next();
            layers.push(path.ok_or_else(|| ExportError::LayerMissing(digest.clone()))?);
        }
        let about = about(image, tag);
        let drafts = self.drafts.clone();
        let work = move || {
            let _running = running;
            let file = unnamed(&drafts).map_err(ExportError::Write)?;
            export(&layers, &about, file).map_err(ExportError::Write)
        };
        let done = self.tasks.spawn_blocking(work).await;
        done.map_err(|_| ExportError::Stopping)?
    }
}

fn about(image: &BuildImage, tag: &str) -> About {
    let mut labels = BTreeMap::from([(MADE.to_owned(), image.template_id.to_string())]);
    let mut command = None;
    if let Some(start) = &image.start {
        if let Some(line) = &start.command {
            labels.insert(START.to_owned(), line.clone());
            let words = ["/bin/bash", "-l", "-c", line];
            command = Some(words.map(str::to_owned).to_vec());
        }
        labels.insert(READY.to_owned(), start.ready.clone());
    }
    About {
        env: image.env.clone(),
        user: image.default_user.clone(),
        workdir: image.default_workdir.clone(),
        command,
        labels,
        tag: tag.to_owned(),
    }
}
