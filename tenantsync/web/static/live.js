// Keeps pages fresh: everything marked `data-live` is fetched again with its page and put in place of what was there.
// Nothing is replaced while somebody is in it, and nothing is fetched while nobody looks.

const every = Number(document.body.dataset.refresh || 0) * 1000;
let timer = 0;
let failures = 0;
let busy = false;

async function refresh() {
  if (busy) return false;
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) replace(old, fresh.getElementById(old.id));
    failures = 0;
    document.dispatchEvent(new CustomEvent("refreshed", { detail: fresh }));
    return true;
  } catch {
    failures += 1;
    return false;
  } finally {
    busy = false;
  }
}

function replace(old, next) {
  if (!next || old.outerHTML === next.outerHTML) return;
  const active = document.activeElement;
  const inside = active && old.contains(active);
  if (inside && active.matches("input, textarea, select")) return;
  if (old.querySelector(":checked[type=radio], :checked[type=checkbox]")) return;
  if ([...old.querySelectorAll("textarea, input:not([type=hidden])")].some((one) => one.value !== one.defaultValue)) return;
  if (old.contains(getSelection()?.anchorNode) && !getSelection().isCollapsed) return;
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  const place = inside ? focusable(old).indexOf(active) : -1;
  const made = document.importNode(next, true);
  made.querySelectorAll("details").forEach((one, number) => (one.open = open[number] ?? one.open));
  old.replaceWith(made);
  if (place >= 0) focusable(made)[place]?.focus({ preventScroll: true });
}

const focusable = (within) => [...within.querySelectorAll("a[href], button, summary, [tabindex]")];

function again() {
  clearTimeout(timer);
  if (!every || document.hidden) return;
  timer = setTimeout(async () => {
    await refresh();
    again();
  }, Math.min(every * 2 ** failures, 60_000));
}

// Somebody knows that the page is behind.
document.addEventListener("stale", async function hurry() {
  if (!(await refresh())) setTimeout(hurry, 500);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh().then(again);
});
again();
