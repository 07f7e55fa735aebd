//! `warren doctor`: checks one by one, each failure with its fix.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::statvfs;
use serde::Serialize;
use warren_runtime::ns;

use crate::cli::Doctor;
use crate::tools;

/// Below this much free space a base template can't be made and sandboxes soon fail.
const WANTED_FREE_BYTES: u64 = 4 << 30;

#[derive(Debug, Serialize)]
struct Line {
    check: String,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// Runs every check and prints the results. Fails if one of them does.
pub(crate) fn run(args: &Doctor, as_json: bool) -> anyhow::Result<ExitCode> {
    let fixed = if args.fix {
        tools::fix(&args.data_dir.path, args.debian_mirror.as_deref())
    } else {
        Ok(())
    };
    let mut lines: Vec<Line> = ns::probe(&args.data_dir.path)
        .into_iter()
        .map(|check| Line {
            check: check.name.to_owned(),
            ok: check.ok,
            detail: check.detail,
            fix: (!check.ok).then(|| check.fix.to_owned()),
        })
        .collect();
    lines.push(disk(&args.data_dir.path));
    lines.push(mmdebstrap());
    lines.push(port(args));
    let healthy = fixed.is_ok() && lines.iter().all(|line| line.ok);

    let mut out = std::io::stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, &lines)?;
        writeln!(out)?;
    } else {
        for line in &lines {
            let mark = if line.ok { "ok  " } else { "FAIL" };
            writeln!(out, "{mark}  {:<24} {}", line.check, line.detail)?;
            if let Some(fix) = &line.fix {
                writeln!(out, "      fix: {fix}")?;
            }
        }
        let verdict = if healthy {
            "this machine can run sandboxes"
        } else {
            "some checks failed"
        };
        writeln!(out, "{verdict}")?;
    }
    fixed?;
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn disk(data_dir: &Path) -> Line {
    let existing: PathBuf = data_dir
        .ancestors()
        .find(|path| path.exists())
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    let (ok, detail) = match statvfs(&existing) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            (
                free >= WANTED_FREE_BYTES,
                format!("{} MiB free at {}", free >> 20, existing.display()),
            )
        }
        Err(error) => (false, format!("{}: {error}", existing.display())),
    };
    Line {
        check: "disk space".to_owned(),
        ok,
        detail,
        fix: (!ok).then(|| "free at least 4 GiB there, or choose another --data-dir".to_owned()),
    }
}

fn mmdebstrap() -> Line {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| dir.join("mmdebstrap").is_file())
    });
    Line {
        check: "mmdebstrap".to_owned(),
        ok: found,
        detail: if found { "installed" } else { "not found" }.to_owned(),
        fix: (!found).then(|| "apt-get install mmdebstrap (makes the base template)".to_owned()),
    }
}

fn port(args: &Doctor) -> Line {
    let bound = TcpListener::bind(args.listen);
    Line {
        check: "port".to_owned(),
        ok: bound.is_ok(),
        detail: match &bound {
            Ok(_) => format!("{} is free", args.listen),
            Err(error) => format!("{}: {error}", args.listen),
        },
        fix: bound.is_err().then(|| {
            format!(
                "find who listens with `ss -ltnp sport = :{}`, or choose another --listen",
                args.listen.port()
            )
        }),
    }
}
