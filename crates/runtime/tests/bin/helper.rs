//! The runtime's helper as a program of its own, for tests.

fn main() -> std::process::ExitCode {
    warren_runtime::ns::helper_main()
}
