// Refreshes parts of pages and asks before what can't be undone.

async function text(url) {
  const answer = await fetch(url, { credentials: "same-origin" });
  if (answer.redirected && new URL(answer.url).pathname.endsWith("/sign-in")) {
    // The page itself leads to the sign-in, and that back to the page.
    location.reload();
  }
  return { ok: answer.ok, status: answer.status, text: await answer.text() };
}

function every(milliseconds, work) {
  let running = false;
  const round = async () => {
    if (running || document.hidden) return;
    running = true;
    try {
      await work();
    } catch {
      // The server is away for a moment; the next round tells.
    } finally {
      running = false;
    }
  };
  round();
  setInterval(round, milliseconds);
}

// An element that is fetched by itself.
for (const part of document.querySelectorAll("[data-part]")) {
  let gone = false;
  every(Number(part.dataset.every), async () => {
    if (gone) return;
    const answer = await text(part.dataset.part);
    if (answer.status === 404) {
      gone = true;
      part.innerHTML = '<p class="alert" role="status">This sandbox has ended.</p>';
    } else if (answer.ok) {
      const before = part.querySelector("pre");
      const atEnd = !before || before.scrollTop + before.clientHeight >= before.scrollHeight - 4;
      const kept = before ? before.scrollTop : 0;
      part.innerHTML = answer.text;
      const after = part.querySelector("pre");
      if (after && "tail" in part.dataset) after.scrollTop = atEnd ? after.scrollHeight : kept;
    }
  });
}

// An element that is cut out of the page it stands on.
for (const piece of document.querySelectorAll("[data-refresh]")) {
  every(Number(piece.dataset.refresh), async () => {
    const answer = await text(location.href);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(answer.text, "text/html");
    const fresh = page.getElementById(piece.id);
    if (fresh && fresh.innerHTML !== piece.innerHTML) piece.innerHTML = fresh.innerHTML;
  });
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

const port = document.getElementById("port");
if (port) {
  const { sandbox, domain } = document.getElementById("agent").dataset;
  port.addEventListener("submit", (event) => {
    event.preventDefault();
    const number = new FormData(port).get("port");
    const host = domain || location.host;
    open(`${location.protocol}//${number}-${sandbox}.${host}/`, "_blank", "noopener");
  });
}
