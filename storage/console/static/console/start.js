// The pages work without scripts. This one adds what only a script can do: dialogues, copying, marking many files.
import { watchDrops } from "./uploads.js";

const dialogue = document.querySelector("#dialogue");
let opener; // the link or the button that has opened the dialogue
let marked = new Set(); // The values of the boxes that were checked when a part of the page was last replaced.

// A button without a text of its own copies the address of the download in its row.
function copy(button) {
  const text = button.dataset.copy || button.closest("tr").querySelector("a.button").href;
  const value = button.dataset.plain === undefined ? new URL(text, location.href).href : text;
  const done = () => say(button, "Copied");
  if (navigator.clipboard) navigator.clipboard.writeText(value).then(done, () => select(value, done));
  else select(value, done);
}

// Browsers offer the clipboard to pages over TLS and on this machine only. Elsewhere the older way works.
function select(value, done) {
  const field = document.createElement("textarea");
  field.value = value;
  (dialogue.open ? dialogue : document.body).append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  done();
}

function say(button, text) {
  const before = button.dataset.label ?? (button.dataset.label = button.textContent);
  button.textContent = text;
  setTimeout(() => { button.textContent = before; }, 1600);
}

function countMarked() {
  const bar = document.querySelector("#chosen");
  if (!bar) return;
  const count = document.querySelectorAll("input[name=item]:checked").length;
  bar.classList.toggle("some", count > 0);
  bar.querySelector("output").textContent = count === 1 ? "1 file marked" : `${count} files marked`;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
  if (event.target.closest("[data-close]") && dialogue.open) {
    event.preventDefault();
    dialogue.close();
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target) || event.target.closest(".menu > div")) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = event.target.closest?.("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
function markAll(isMarked) {
  for (const box of document.querySelectorAll("input[name=item]")) box.checked = isMarked;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "all") markAll(event.target.checked);
  if (event.target.dataset.submits !== undefined) event.target.form.requestSubmit();
  countMarked();
});
// The service answers with JSON unless a request asks for a page.
document.addEventListener("htmx:configRequest", (event) => { event.detail.headers.Accept = "text/html"; });
// The list is loaded again when uploads have ended. The files that somebody has marked stay marked.
document.addEventListener("htmx:beforeSwap", () => {
  marked = new Set(Array.from(document.querySelectorAll("input[name=item]:checked"), (box) => box.value));
});
document.addEventListener("htmx:afterSwap", (event) => {
  for (const box of document.querySelectorAll("input[name=item]")) box.checked ||= marked.has(box.value);
  if (event.target.id === "dialogue-body" && !dialogue.open) {
    opener = event.detail.requestConfig.elt;
    dialogue.showModal();
  }
  countMarked();
});
// A folder was opened in its place: the keyboard and the screen reader go on at its list.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.requestConfig?.elt.matches("[data-folder-link]")) document.querySelector("#list").focus({ preventScroll: true });
});
// Whoever uses the keyboard goes on where the dialogue was opened.
dialogue.addEventListener("close", () => {
  (opener?.closest("details.menu")?.querySelector("summary") ?? opener)?.focus();
});
// A click on what is behind the dialogue closes it.
dialogue.addEventListener("click", (event) => { if (event.target === dialogue) dialogue.close(); });

// A user may have checked the box for all files before this script ran.
if (document.querySelector("#all")?.checked) markAll(true);
countMarked();
watchDrops();
