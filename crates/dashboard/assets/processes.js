// Lists and ends processes, and looks for ports that something listens on.
import { address, call, element, run, told } from "./agent.js";

const place = document.getElementById("processes");
const ports = document.getElementById("ports");
const form = document.getElementById("port");

function signals(pid, shown) {
  const send = async (signal) => {
    try {
      await call("process.Process/SendSignal", { process: { pid }, signal });
      await list();
    } catch (error) {
      shown.replaceChildren(told(error));
    }
  };
  const button = (label, signal, className) =>
    element("button", {
      type: "button",
      className,
      textContent: label,
      ariaLabel: `${label} process ${pid}`,
      onclick: () => send(signal),
    });
  return element(
    "td",
    { className: "act" },
    button("Terminate", "SIGNAL_SIGTERM", ""),
    " ",
    button("Kill", "SIGNAL_SIGKILL", "danger"),
  );
}

let before = "";

async function list() {
  try {
    // A browser has few connections to a host: none is held by an answer that does not come.
    const { processes: all = [] } = await call("process.Process/List", {}, { limit: 10_000 });
    // What is the same is left alone, so that nobody loses the button under the finger.
    const now = JSON.stringify(all);
    if (now === before) return;
    before = now;
    if (!all.length) {
      place.replaceChildren(element("p", { className: "empty", textContent: "None started by a client." }));
      return;
    }
    const shown = element("div", { ariaLive: "polite" });
    const head = ["Id", "Command", "Actions"].map((textContent) => element("th", { scope: "col", textContent, className: textContent === "Actions" ? "act" : "" }));
    const rows = all.map(({ pid, config }) =>
      element(
        "tr",
        {},
        element("td", { className: "id", textContent: pid }),
        element("td", { className: "id wrap", textContent: [config.cmd, ...(config.args || [])].join(" ") }),
        signals(pid, shown),
      ),
    );
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
    place.replaceChildren(element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "List of processes" }, table), shown);
  } catch (error) {
    before = "";
    place.replaceChildren(told(error));
  }
}

// Lines of /proc/net/tcp: the local address in hex, and state 0A for those that listen.
function listening(text) {
  const found = new Set();
  for (const line of text.split("\n")) {
    const match = line.match(/^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:0000 0A /);
    if (match) found.add(parseInt(match[1], 16));
  }
  return [...found].sort((a, b) => a - b);
}

async function look() {
  try {
    const own = Number(document.getElementById("agent").dataset.port);
    const found = listening(await run("/bin/cat", "/proc/net/tcp", "/proc/net/tcp6")).filter((port) => port !== own);
    if (!found.length) {
      ports.replaceChildren(element("p", { className: "empty", textContent: "Nothing listens." }));
      return;
    }
    const links = found.map((port) =>
      element("li", {}, element("a", { href: address(port), target: "_blank", rel: "noopener", textContent: `Port ${port}` })),
    );
    ports.replaceChildren(element("ul", {}, ...links));
  } catch (error) {
    ports.replaceChildren(told(error));
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  open(address(new FormData(form).get("port")), "_blank", "noopener");
});
document.getElementById("ports-look").addEventListener("click", look);

// One at a time, so that a slow answer is not overtaken and shown after a later one.
async function follow() {
  for (;;) {
    if (!document.hidden) await list();
    await new Promise((done) => setTimeout(done, 3000));
  }
}
follow();
