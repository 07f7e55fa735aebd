//! What is measured.

pub(crate) mod command;
pub(crate) mod create;
pub(crate) mod egress;
pub(crate) mod idle;
pub(crate) mod interpreter;
pub(crate) mod lifecycle;
pub(crate) mod proxy;
pub(crate) mod pull;
mod secure;
pub(crate) mod templates;
pub(crate) mod transfer;
