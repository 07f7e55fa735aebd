// Speaks to the agent of the sandbox whose page this is, with its Connect protocol in JSON.

const { sandbox, port, token, domain } = document.getElementById("agent").dataset;

// On these hosts headers tell which sandbox is meant; elsewhere each has a host of its own.
const shared = location.hostname === "localhost" || /^[\d.]+$|^\[/.test(location.hostname);
const base = shared ? location.origin : `${location.protocol}//${port}-${sandbox}.${domain}`;

function headers(more, user) {
  const all = { ...more };
  if (shared) {
    all["E2b-Sandbox-Id"] = sandbox;
    all["E2b-Sandbox-Port"] = port;
  }
  if (token) all["X-Access-Token"] = token;
  if (user) all["Authorization"] = "Basic " + btoa(user + ":");
  return all;
}

async function refusal(answer) {
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).message || message;
  } catch {
    // No body that tells more.
  }
  return new Error(message);
}

// With `last`, the call goes out though the page is left; with `limit`, in milliseconds, it is
// given up after so long.
export async function call(method, body, { last = false, limit } = {}) {
  const answer = await fetch(`${base}/${method}`, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json", "Connect-Protocol-Version": "1" }),
    body: JSON.stringify(body),
    keepalive: last,
    signal: limit ? AbortSignal.timeout(limit) : undefined,
  });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

// Yields the messages of a stream.
export async function* stream(method, body, signal) {
  const message = new TextEncoder().encode(JSON.stringify(body));
  const frame = new Uint8Array(5 + message.length);
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, 5);
  const answer = await fetch(`${base}/${method}`, {
    method: "POST",
    headers: headers({
      "Content-Type": "application/connect+json",
      "Connect-Protocol-Version": "1",
      "Keepalive-Ping-Interval": "30",
    }),
    body: frame,
    signal,
  });
  if (!answer.ok) throw await refusal(answer);
  const reader = answer.body.getReader();
  let kept = new Uint8Array();
  for (;;) {
    while (kept.length >= 5) {
      const length = new DataView(kept.buffer, kept.byteOffset).getUint32(1);
      if (kept.length < 5 + length) break;
      const value = JSON.parse(new TextDecoder().decode(kept.subarray(5, 5 + length)));
      const last = kept[0] & 2;
      kept = kept.subarray(5 + length);
      if (last) {
        if (value.error) throw new Error(value.error.message || value.error.code);
        return;
      }
      yield value;
    }
    const { done, value } = await reader.read();
    if (done) throw new Error("the connection was cut");
    const joined = new Uint8Array(kept.length + value.length);
    joined.set(kept);
    joined.set(value, kept.length);
    kept = joined;
  }
}

export async function download(path) {
  const answer = await fetch(`${base}/files?path=${encodeURIComponent(path)}`, { headers: headers({}) });
  if (!answer.ok) throw await refusal(answer);
  return answer.blob();
}

export async function upload(path, file) {
  const form = new FormData();
  form.append("file", file, path);
  const answer = await fetch(`${base}/files?path=${encodeURIComponent(path)}`, {
    method: "POST",
    headers: headers({}),
    body: form,
  });
  if (!answer.ok) throw await refusal(answer);
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function told(error) {
  return element("p", { className: "alert", role: "alert", textContent: error.message });
}

// Where a port of the sandbox is reached by a browser.
export function address(number) {
  return `${location.protocol}//${number}-${sandbox}.${domain || location.host}/`;
}

// Runs a command to its end and gives what it printed.
export async function run(cmd, ...args) {
  const stop = new AbortController();
  let out = "";
  const start = { process: { cmd, args } };
  for await (const { event } of stream("process.Process/Start", start, stop.signal)) {
    if (event?.data?.stdout) out += atob(event.data.stdout);
  }
  return out;
}
