//! Exit statuses in words.

use rustix::process::WaitStatus;
use warren_connect::process::process_event::EndEvent;

/// The event that ends a process's stream.
#[must_use]
pub(crate) fn end_event(status: WaitStatus) -> EndEvent {
    describe(status.as_raw())
}

/// Reads a raw wait status: low seven bits signal, one bit core dump, next eight bits code.
fn describe(raw: i32) -> EndEvent {
    let signal = raw & 0x7f;
    if signal == 0 {
        let code = (raw >> 8) & 0xff;
        let text = format!("exit status {code}");
        return EndEvent {
            exit_code: code,
            exited: true,
            error: (code != 0).then(|| text.clone()),
            status: text,
        };
    }
    let dumped = raw & 0x80 != 0;
    let text = format!(
        "signal: {}{}",
        signal_text(signal),
        if dumped { " (core dumped)" } else { "" }
    );
    EndEvent {
        exit_code: -1,
        exited: false,
        error: Some(text.clone()),
        status: text,
    }
}

fn signal_text(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        16 => "stack fault",
        17 => "child exited",
        18 => "continued",
        19 => "stopped (signal)",
        20 => "stopped",
        21 => "stopped (tty input)",
        22 => "stopped (tty output)",
        23 => "urgent I/O condition",
        24 => "CPU time limit exceeded",
        25 => "file size limit exceeded",
        26 => "virtual timer expired",
        27 => "profiling timer expired",
        28 => "window changed",
        29 => "I/O possible",
        30 => "power failure",
        31 => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::describe as of;

    #[test]
    fn exits_and_signals_in_words() {
        let ok = of(0);
        assert_eq!((ok.exit_code, ok.exited, ok.error), (0, true, None));
        assert_eq!(ok.status, "exit status 0");
        assert_eq!(of(3 << 8).error.as_deref(), Some("exit status 3"));
        let killed = of(9);
        assert_eq!((killed.exit_code, killed.exited), (-1, false));
        assert_eq!(killed.status, "signal: killed");
        assert_eq!(
            of(11 | 0x80).status,
            "signal: segmentation fault (core dumped)"
        );
        assert_eq!(of(40).status, "signal: signal 40");
    }
}
