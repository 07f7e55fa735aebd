//! Figures, printed and not judged: `cargo test --release -- --ignored --nocapture speed`.

use std::time::{Duration, Instant};

use warren_runtime::{Runtime, Sandbox};

use crate::harness::Host;

#[expect(clippy::print_stdout, reason = "figures are what the test is for")]
fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{name}: p50 {:?}, p99 {:?}, n {}",
        at(50),
        at(99),
        times.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn boots_and_churn() {
    let host = Host::start(50);
    host.settle_prepared(50).await;
    let mut alone = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        let sandbox = host.boot().await;
        alone.push(start.elapsed());
        sandbox.destroy().await.unwrap();
        host.runtime.drain().await;
        host.settle_prepared(50).await;
    }
    report("boot, prepared", alone);
    let start = Instant::now();
    let boots = (0..50).map(|_| host.boot());
    let sandboxes = futures_util::future::join_all(boots).await;
    println!("50 at once: {:?}", start.elapsed());
    let memory = || -> u64 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("MemAvailable"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let with = memory();
    let start = Instant::now();
    futures_util::future::join_all(sandboxes.iter().map(Sandbox::destroy)).await;
    println!("50 destroyed: {:?}", start.elapsed());
    drop(sandboxes);
    host.runtime.drain().await;
    println!(
        "drained: {:?}; {} KiB available with 50, {} without",
        start.elapsed(),
        with,
        memory()
    );
    let start = Instant::now();
    let workers = (0..4).map(|_| async {
        for _ in 0..100 {
            host.boot().await.destroy().await.unwrap();
        }
    });
    futures_util::future::join_all(workers).await;
    println!(
        "400 lives by 4 in turn: {:.0}/s",
        400.0 / start.elapsed().as_secs_f64()
    );
    host.stop().await;
}
