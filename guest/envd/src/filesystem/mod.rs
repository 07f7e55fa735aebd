//! The file system service: entries, listings, changes and watches.

mod entry;
mod list;
mod mounts;
mod ops;
mod rpc;
mod watch;
mod watchers;

pub use entry::permissions_text;
pub(crate) use ops::is_missing;
pub(crate) use rpc::{
    create_watcher, get_watcher_events, list_dir, make_dir, move_entry, remove, remove_watcher,
    stat, watch_dir,
};
pub(crate) use watchers::Watchers;
