//! Paths that clients name: what is resolved is absolute, and cleaning is final.

#![no_main]

use warren_envd::paths::{clean, resolve};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(resolved) = resolve(path, "/home/user", None) {
        assert!(resolved.starts_with('/'), "{resolved:?}");
        assert!(!resolved.contains('\0'));
        // Only absolute paths are taken as they are; all others stay free of `..`.
        if !path.starts_with('/') {
            assert!(!resolved.split('/').any(|part| part == ".."), "{resolved:?}");
        }
    }
    let cleaned = clean(path);
    assert_eq!(clean(&cleaned), cleaned);
    assert!(!cleaned.split('/').any(|part| part == ".." || part == "."));
});
