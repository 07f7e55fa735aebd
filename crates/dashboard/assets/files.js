// Browses, fetches and stores files, and lists processes.
import { call, download, upload } from "./agent.js";

const PREVIEW = 256 * 1024;
const place = document.getElementById("files");
const processes = document.getElementById("processes");

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

function told(error) {
  return element("p", { className: "alert", role: "alert", textContent: error.message });
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function preview(entry) {
  const blob = await download(entry.path);
  if (/\.(png|jpe?g|gif|webp|svg)$/i.test(entry.name)) {
    const type = /svg$/i.test(entry.name) ? "image/svg+xml" : "";
    const url = URL.createObjectURL(new Blob([blob], { type }));
    return element("img", { src: url, alt: entry.name, style: "max-width:100%" });
  }
  const text = await blob.slice(0, PREVIEW).text();
  const cut = blob.size > PREVIEW ? "\n… (cut; download the file for the rest)" : "";
  return element("pre", { textContent: text + cut, tabIndex: 0 });
}

function crumbs(path) {
  const bar = element("p", { className: "crumbs" });
  const parts = path.split("/").filter(Boolean);
  const step = (label, target) =>
    element("button", { type: "button", textContent: label, onclick: () => show(target) });
  bar.append(step("/", "/"));
  parts.forEach((part, index) => {
    bar.append(step(part, "/" + parts.slice(0, index + 1).join("/")), " / ");
  });
  return bar;
}

function uploader(path) {
  const input = element("input", { type: "file", multiple: true, ariaLabel: "Files to upload" });
  input.addEventListener("change", async () => {
    try {
      for (const file of input.files) await upload(`${path}/${file.name}`, file);
      await show(path);
    } catch (error) {
      place.append(told(error));
    }
  });
  return element("p", {}, element("label", {}, "Upload here ", input));
}

function row(entry, shown) {
  const isDirectory = entry.type === "FILE_TYPE_DIRECTORY";
  const open = async () => {
    try {
      if (isDirectory) await show(entry.path);
      else shown.replaceChildren(await preview(entry));
    } catch (error) {
      shown.replaceChildren(told(error));
    }
  };
  const name = element("button", {
    type: "button",
    className: "quiet",
    textContent: entry.name + (isDirectory ? "/" : ""),
    onclick: open,
  });
  const actions = element("td");
  if (!isDirectory) {
    const fetchIt = async () => {
      try {
        save(await download(entry.path), entry.name);
      } catch (error) {
        shown.replaceChildren(told(error));
      }
    };
    actions.append(element("button", { type: "button", textContent: "Download", onclick: fetchIt }));
  }
  const cell = (textContent) => element("td", { textContent });
  return element(
    "tr",
    {},
    element("td", {}, name),
    cell(isDirectory ? "" : size(Number(entry.size || 0))),
    cell(entry.permissions || ""),
    cell(entry.owner || ""),
    actions,
  );
}

async function show(path) {
  try {
    const { entries = [] } = await call("filesystem.Filesystem/ListDir", { path, depth: 1 });
    entries.sort((a, b) => (b.type || "").localeCompare(a.type || "") * -1 || a.name.localeCompare(b.name));
    const shown = element("div", { ariaLive: "polite" });
    const body = element("tbody", {}, ...entries.map((entry) => row(entry, shown)));
    const head = ["Name", "Size", "Permissions", "Owner", ""].map((textContent) =>
      element("th", { scope: "col", textContent }),
    );
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), body);
    const scroll = element("div", { className: "scroll" }, table);
    place.replaceChildren(crumbs(path), uploader(path === "/" ? "" : path), scroll, shown);
  } catch (error) {
    place.replaceChildren(crumbs(path), told(error));
  }
}

async function list() {
  try {
    const { processes: all = [] } = await call("process.Process/List", {});
    if (!all.length) {
      processes.replaceChildren(element("p", { className: "hint", textContent: "None started by a client." }));
      return;
    }
    const rows = all.map(({ pid, config }) =>
      element(
        "tr",
        {},
        element("td", { className: "id", textContent: pid }),
        element("td", { className: "id", textContent: [config.cmd, ...(config.args || [])].join(" ") }),
      ),
    );
    const table = element("table", {}, element("tbody", {}, ...rows));
    processes.replaceChildren(element("div", { className: "scroll" }, table));
  } catch (error) {
    processes.replaceChildren(told(error));
  }
}

show("/home/user");
list();
setInterval(() => document.hidden || list(), 3000);
