// Sends files to a volume.
const form = document.getElementById("volume-upload");
const note = document.getElementById("volume-note");
const csrf = document.querySelector('meta[name="csrf"]').content;

function told(className, role, text) {
  const line = document.createElement("p");
  line.className = className;
  line.setAttribute("role", role);
  line.textContent = text;
  note.replaceChildren(line);
}

async function send(file) {
  const directory = form.dataset.path.replace(/\/$/, "");
  const to = `${form.dataset.to}?path=${encodeURIComponent(`${directory}/${file.name}`)}`;
  const answer = await fetch(to, {
    method: "POST",
    headers: { "X-CSRF-Token": csrf, "Content-Type": "application/octet-stream" },
    body: file,
  });
  if (answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  throw new Error(page.querySelector(".alert")?.textContent || `${answer.status} ${answer.statusText}`);
}

form.addEventListener("submit", (event) => event.preventDefault());
form.querySelector("input").addEventListener("change", async (event) => {
  try {
    for (const file of event.target.files) {
      told("hint", "status", `Sending ${file.name} …`);
      await send(file);
    }
    location.reload();
  } catch (error) {
    told("alert", "alert", error.message);
  }
});
