//! One sandbox: how it is booted and initialised, and the task that owns it.

mod boot;
mod end;
mod owner;
mod pause;
mod ready;

pub(crate) use boot::{Booted, Booter, Claim};
pub(crate) use end::ended_text;
pub(crate) use owner::{Command, Context, Owner};
