// A shell on a terminal in the page.
import { call, stream } from "./agent.js";

const PROCESS = "process.Process";
const button = document.getElementById("terminal-open");
const place = document.getElementById("terminal");
const note = document.getElementById("terminal-note");

function encode(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function decode(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

async function run() {
  button.hidden = true;
  place.hidden = false;
  place.replaceChildren();
  const terminal = new globalThis.Terminal({ cursorBlink: true, scrollback: 5000, fontSize: 14 });
  const fit = new globalThis.FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  fit.fit();
  terminal.focus();
  const size = () => ({ size: { cols: terminal.cols, rows: terminal.rows } });
  const stop = new AbortController();
  let process = null;
  // Keys are sent one request at a time, in order; what is typed meanwhile goes together.
  let typed = "";
  let sending = false;
  const send = async () => {
    if (sending || !process) return;
    sending = true;
    while (typed) {
      const pty = encode(new TextEncoder().encode(typed));
      typed = "";
      try {
        await call(`${PROCESS}/SendInput`, { process, input: { pty } });
      } catch (error) {
        note.textContent = error.message;
      }
    }
    sending = false;
  };
  terminal.onData((data) => {
    typed += data;
    send();
  });
  terminal.onResize(() => {
    if (process) call(`${PROCESS}/Update`, { process, pty: size() }).catch(() => {});
  });
  const resized = new ResizeObserver(() => fit.fit());
  resized.observe(place);
  // A shell outlives its stream, so it is ended by name.
  const leave = () => {
    if (process) call(`${PROCESS}/SendSignal`, { process, signal: "SIGNAL_SIGKILL" }, { last: true }).catch(() => {});
    stop.abort();
  };
  addEventListener("pagehide", leave);
  try {
    const start = {
      process: {
        cmd: "/bin/bash",
        args: ["-i", "-l"],
        envs: { TERM: "xterm-256color", LANG: "C.UTF-8", LC_ALL: "C.UTF-8" },
      },
      pty: size(),
    };
    for await (const { event } of stream(`${PROCESS}/Start`, start, stop.signal)) {
      if (event?.start) {
        process = { pid: event.start.pid };
        note.textContent = "Connected.";
        send();
      } else if (event?.data?.pty) {
        terminal.write(decode(event.data.pty));
      } else if (event?.end) {
        note.textContent = `The shell has ended (${event.end.status}).`;
      }
    }
  } catch (error) {
    note.textContent = `The terminal was closed: ${error.message}`;
  } finally {
    removeEventListener("pagehide", leave);
    resized.disconnect();
    button.hidden = false;
  }
}

button.addEventListener("click", run);
