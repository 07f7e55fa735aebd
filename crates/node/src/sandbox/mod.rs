//! One sandbox: how it is booted and initialised, and the task that owns it.

mod boot;
mod owner;

pub(crate) use boot::{Booted, Booter};
pub(crate) use owner::{Command, Context, Owner};
