//! Signals: their names in SSH, and how the agent words them.

use russh::Sig;
use warren_connect::process::process_event::EndEvent;

/// How a process ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Code(u32),
    Signal {
        name: Sig,
        core_dumped: bool,
        text: String,
    },
}

/// Reads the agent's word of an end.
pub(crate) fn ending(end: &EndEvent) -> Ending {
    let Some(words) = end.status.strip_prefix("signal: ") else {
        // A process can't exit with anything else than a byte.
        return Ending::Code(u32::try_from(end.exit_code).unwrap_or(255) & 0xff);
    };
    let (words, core_dumped) = match words.strip_suffix(" (core dumped)") {
        Some(words) => (words, true),
        None => (words, false),
    };
    let name = match words {
        "hangup" => Sig::HUP,
        "interrupt" => Sig::INT,
        "quit" => Sig::QUIT,
        "illegal instruction" => Sig::ILL,
        "aborted" => Sig::ABRT,
        "floating point exception" => Sig::FPE,
        "killed" => Sig::KILL,
        "user defined signal 1" => Sig::USR1,
        "segmentation fault" => Sig::SEGV,
        "broken pipe" => Sig::PIPE,
        "alarm clock" => Sig::ALRM,
        "terminated" => Sig::TERM,
        _ => Sig::Custom("UNKNOWN@warren".to_owned()),
    };
    Ending::Signal {
        name,
        core_dumped,
        text: end.status.clone(),
    }
}

/// The name that `kill -s` takes; `None` for signals that clients may not send.
pub(crate) fn kill_name(signal: &Sig) -> Option<&'static str> {
    Some(match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) if name == "USR2" => "USR2",
        Sig::Custom(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(exit_code: i32, status: &str) -> EndEvent {
        EndEvent {
            exit_code,
            exited: exit_code >= 0,
            status: status.to_owned(),
            error: None,
        }
    }

    #[test]
    fn codes_and_signals_are_told_apart() {
        assert!(matches!(ending(&end(3, "exit status 3")), Ending::Code(3)));
        assert!(matches!(ending(&end(-1, "what?")), Ending::Code(255)));
        let Ending::Signal {
            name, core_dumped, ..
        } = ending(&end(-1, "signal: segmentation fault (core dumped)"))
        else {
            panic!("a signal");
        };
        assert_eq!((kill_name(&name), core_dumped), (Some("SEGV"), true));
    }
}
