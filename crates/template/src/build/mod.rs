//! Builds of templates: from a description to the layers that sandboxes start from.

mod port;

pub use port::{
    BuildFailure, BuildLine, BuildLog, BuildRequest, Builder, Built, RegistryCredentials, Source,
    Step,
};
