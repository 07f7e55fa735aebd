//! Builds of templates: from the cache, of one step, and what a layer costs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::builds::run;
use crate::report::Report;
use crate::server::Server;

const STEPS: usize = 10;

/// Ten steps that write a little each; the last can differ.
fn recipe(last: &str) -> Value {
    let mut steps: Vec<_> = (1..STEPS)
        .map(|number| {
            run(&format!(
                "mkdir -p /srv/bench; echo {number} > /srv/bench/{number}"
            ))
        })
        .collect();
    steps.push(run(&format!("echo {last} > /srv/bench/last")));
    json!({ "fromImage": "e2bdev/base", "steps": steps })
}

/// A template of ten steps, built again.
pub(crate) async fn rebuild(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    let api = &server.api;
    api.build("bench-steps", &recipe("first")).await?;
    let mut unchanged = Vec::new();
    for _ in 0..n {
        let built = api.build("bench-steps", &recipe("first")).await?;
        anyhow::ensure!(
            built.cached() == STEPS,
            "{} steps were cached",
            built.cached()
        );
        unchanged.push(built.took);
    }
    let mut last = Vec::new();
    for round in 0..n {
        let built = api
            .build("bench-steps", &recipe(&format!("round {round}")))
            .await?;
        anyhow::ensure!(
            built.cached() == STEPS - 1,
            "{} steps were cached",
            built.cached()
        );
        last.push(built.took);
    }
    report.times("build of 10 steps, nothing changed", unchanged);
    report.times("build of 10 steps, the last changed", last);
    Ok(())
}

/// What a step writes, and what that takes beside a step that writes nothing: the image
/// below is the same, some 900 MB.
pub(crate) async fn layers(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    let api = &server.api;
    let cases = [
        ("nothing", "true"),
        ("1 file of 4 kB", "head -c 4096 /dev/zero > /srv/one"),
        (
            "1,000 files of 4 kB",
            "mkdir /srv/d; head -c 4096000 /dev/zero | split -b 4096 -a 4 - /srv/d/",
        ),
        (
            "10,000 files of 4 kB",
            "mkdir /srv/d; head -c 40960000 /dev/zero | split -b 4096 -a 4 - /srv/d/",
        ),
        ("1 file of 100 MB", "head -c 100000000 /dev/zero > /srv/one"),
    ];
    // The phases before are made once.
    let plain = json!({ "fromImage": "e2bdev/base", "steps": [run("true")] });
    api.build("bench-layers", &plain).await?;
    for (name, command) in cases {
        let mut series: Vec<Duration> = Vec::new();
        for round in 0..n {
            let step = run(&format!("{command} # {round}"));
            let start = json!({ "fromImage": "e2bdev/base", "steps": [step] });
            let built = api.build("bench-layers", &start).await?;
            series.push(built.between("[builder 1/1] RUN", "[finalize] Finalizing")?);
        }
        report.times(format!("step that writes {name}"), series);
    }
    Ok(())
}
