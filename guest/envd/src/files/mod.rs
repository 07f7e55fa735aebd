//! File contents over plain HTTP: upload, download, compose.

mod compose;
pub mod disposition;
mod download;
pub mod encoding;
mod http_date;
pub(crate) mod metadata;
mod mime;
pub mod multipart;
pub mod range;
mod upload;
mod write;

pub(crate) use compose::compose;
pub(crate) use download::download;
pub(crate) use upload::upload;
