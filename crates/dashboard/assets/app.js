// Refreshes parts of pages and asks before what can't be undone.

const team = document.querySelector('meta[name="team"]')?.content;

// A page that is left open while its visitor goes over to another team is made anew rather
// than filled with what is of that team.
async function text(url) {
  const headers = team ? { "X-Page-Team": team } : {};
  const answer = await fetch(url, { credentials: "same-origin", headers, signal: AbortSignal.timeout(15_000) });
  if (answer.status === 409) location.reload();
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

// Replaces what an element holds, and keeps what the visitor does with it: the focus, and
// where a log is scrolled to. Nothing is touched while they select text in it.
function renew(part, html) {
  if (part.innerHTML === html) return;
  const selected = getSelection();
  if (selected && !selected.isCollapsed && part.contains(selected.anchorNode)) return;
  const focus = part.contains(document.activeElement) ? position(part, document.activeElement) : -1;
  const before = part.querySelector("pre");
  const atEnd = !before || before.scrollTop + before.clientHeight >= before.scrollHeight - 4;
  const kept = before ? before.scrollTop : 0;
  const aside = part.querySelector(".scroll")?.scrollLeft;
  part.innerHTML = html;
  const after = part.querySelector("pre");
  if (after) after.scrollTop = atEnd && "tail" in part.dataset ? after.scrollHeight : kept;
  const scroll = part.querySelector(".scroll");
  if (scroll && aside) scroll.scrollLeft = aside;
  if (focus >= 0) focusable(part)[focus]?.focus({ preventScroll: true });
}

function focusable(part) {
  return [...part.querySelectorAll("a, button, input, select, [tabindex]")];
}

function position(part, element) {
  return focusable(part).indexOf(element);
}

// An element that is fetched by itself. A form with `data-for` its id says what of it.
for (const part of document.querySelectorAll("[data-part]")) {
  const choice = document.querySelector(`form[data-for="${part.id}"]`);
  let gone = false;
  const round = async () => {
    if (gone) return;
    const query = choice ? "?" + new URLSearchParams(new FormData(choice)) : "";
    const answer = await text(part.dataset.part + query);
    if (answer.status === 404) {
      gone = true;
      const ended = `${location.pathname.replace(/\/$/, "")}/ended`;
      part.innerHTML = '<p class="alert" role="status">This sandbox has ended. <a>What is left of it</a></p>';
      part.querySelector("a").href = ended;
    } else if (answer.ok) {
      renew(part, answer.text);
    } else if (answer.status === 400) {
      const page = new DOMParser().parseFromString(answer.text, "text/html");
      part.replaceChildren(page.querySelector(".alert") ?? "");
    }
  };
  every(Number(part.dataset.every), round);
  choice?.addEventListener("input", () => round().catch(() => {}));
  choice?.addEventListener("submit", (event) => event.preventDefault());
}

// An element that is cut out of the page it stands on, or of the one that it names.
for (const piece of document.querySelectorAll("[data-refresh]")) {
  every(Number(piece.dataset.refresh), async () => {
    if (!("refresh" in piece.dataset)) return;
    const answer = await text(piece.dataset.from || location.href);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(answer.text, "text/html");
    const fresh = page.getElementById(piece.id);
    if (!fresh) return;
    renew(piece, fresh.innerHTML);
    // What has come to its end is not asked for any more.
    if (!("refresh" in fresh.dataset)) delete piece.dataset.refresh;
  });
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

for (const link of document.querySelectorAll("[data-back]")) {
  if (!document.referrer.startsWith(location.origin)) continue;
  link.href = document.referrer;
}
