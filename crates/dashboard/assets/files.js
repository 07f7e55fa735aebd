// Browses, fetches, stores and removes files.
import { call, download, element, told, upload } from "./agent.js";

const PREVIEW = 256 * 1024;
const LARGEST = 32 * 1024 * 1024;
const place = document.getElementById("files");

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function preview(entry) {
  if (Number(entry.size || 0) > LARGEST) {
    return element("p", { className: "hint", textContent: "Too large to be shown; download it." });
  }
  const blob = await download(entry.path);
  if (/\.(png|jpe?g|gif|webp|svg)$/i.test(entry.name)) {
    const type = /svg$/i.test(entry.name) ? "image/svg+xml" : "";
    const url = URL.createObjectURL(new Blob([blob], { type }));
    return element("img", { src: url, alt: entry.name, style: "max-width:100%" });
  }
  const text = await blob.slice(0, PREVIEW).text();
  const cut = blob.size > PREVIEW ? "\n… (cut; download the file for the rest)" : "";
  return element("pre", { textContent: text + cut, tabIndex: 0, role: "region", ariaLabel: `Content of ${entry.name}` });
}

function parent(path) {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

function crumbs(path) {
  const bar = element("nav", { className: "crumbs", ariaLabel: "Folder" });
  const parts = path.split("/").filter(Boolean);
  const step = (label, target) =>
    element("button", { type: "button", textContent: label, onclick: () => show(target) });
  bar.append(step("/", "/"));
  parts.forEach((part, index) => {
    bar.append(index ? " / " : " ", step(part, "/" + parts.slice(0, index + 1).join("/")));
  });
  return bar;
}

function uploader(path) {
  const input = element("input", { type: "file", multiple: true });
  input.addEventListener("change", async () => {
    try {
      for (const file of input.files) await upload(`${path}/${file.name}`, file);
      await show(path || "/");
    } catch (error) {
      place.append(told(error));
    }
  });
  const name = element("input", { size: 14, required: true, placeholder: "folder", ariaLabel: "Name of the new folder" });
  const make = element("form", { className: "inline" }, name, " ", element("button", { textContent: "New folder" }));
  make.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await call("filesystem.Filesystem/MakeDir", { path: `${path}/${name.value}` });
      await show(path || "/");
    } catch (error) {
      place.append(told(error));
    }
  });
  return element("div", { className: "actions" }, element("label", {}, "Upload here ", input), make);
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
  const actions = element("td", { className: "act" });
  if (!isDirectory) {
    const fetchIt = async () => {
      try {
        save(await download(entry.path), entry.name);
      } catch (error) {
        shown.replaceChildren(told(error));
      }
    };
    actions.append(
      element("button", { type: "button", textContent: "Download", ariaLabel: `Download ${entry.name}`, onclick: fetchIt }),
      " ",
    );
  }
  const remove = async () => {
    if (!confirm(`Delete ${entry.path}${isDirectory ? " and all that is in it" : ""}?`)) return;
    try {
      await call("filesystem.Filesystem/Remove", { path: entry.path });
      await show(parent(entry.path));
    } catch (error) {
      shown.replaceChildren(told(error));
    }
  };
  actions.append(
    element("button", { type: "button", className: "danger", textContent: "Delete", ariaLabel: `Delete ${entry.name}`, onclick: remove }),
  );
  const cell = (textContent, label) => {
    const made = element("td", { textContent });
    made.dataset.label = label;
    return made;
  };
  return element(
    "tr",
    {},
    element("td", { className: "wrap" }, name),
    cell(isDirectory ? "" : size(Number(entry.size || 0)), "Size"),
    cell(entry.permissions || "", "Permissions"),
    cell(entry.owner || "", "Owner"),
    actions,
  );
}

async function show(path) {
  try {
    const { entries = [] } = await call("filesystem.Filesystem/ListDir", { path, depth: 1 });
    entries.sort((a, b) => (b.type || "").localeCompare(a.type || "") * -1 || a.name.localeCompare(b.name));
    const shown = element("div", { ariaLive: "polite" });
    const body = element("tbody", {}, ...entries.map((entry) => row(entry, shown)));
    const head = ["Name", "Size", "Permissions", "Owner", "Actions"].map((textContent) =>
      element("th", { scope: "col", textContent, className: textContent === "Actions" ? "act" : "" }),
    );
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), body);
    const scroll = element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Files of " + path }, table);
    const list = entries.length ? scroll : element("p", { className: "empty", textContent: "Nothing in here." });
    const inside = place.contains(document.activeElement);
    place.replaceChildren(crumbs(path), uploader(path === "/" ? "" : path), list, shown);
    // Whoever goes on by the keyboard does so from here.
    if (inside) place.querySelector(".crumbs button:last-of-type")?.focus({ preventScroll: true });
  } catch (error) {
    place.replaceChildren(crumbs(path), told(error));
  }
}

show("/home/user");
