//! The fuzz targets' bodies over their seeds, on the stable toolchain.

use std::path::Path;

fn run_seeds(target: &str, check: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(seeds).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{target} has seeds");
}

#[test]
fn host() {
    run_seeds("host", warren_proxy::check_host_input);
}

#[test]
fn reserved_path() {
    run_seeds("reserved_path", warren_proxy::check_path_input);
}
