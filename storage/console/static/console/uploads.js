// The list of uploads: files wait in it, are sent a few at a time, and say in words how far they are.
import { send } from "./transport.js";

const AT_ONCE = 3;
const AVERAGED = 4000; // ms over which the speed is averaged
const LISTED = 200; // finished uploads that stay in the list

const waiting = [];
const sending = new Set();
let list;
let template;
let address;
let finished = 0;
let refreshing;

export function watchDrops() {
  const area = document.querySelector("#drop");
  if (!area) return;
  list = document.querySelector("#upload-list");
  address = area.dataset.address;
  template = document.querySelector("#upload-template");
  for (const input of area.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      add([...input.files]);
      input.value = "";
    });
  }
  for (const button of area.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => document.getElementById(button.dataset.opens).click());
  }
  let depth = 0;
  const over = (isOver) => area.classList.toggle("over", isOver);
  addEventListener("dragenter", (event) => { if (carriesFiles(event)) { depth += 1; over(true); } });
  addEventListener("dragleave", (event) => { if (carriesFiles(event) && (depth -= 1) <= 0) { depth = 0; over(false); } });
  addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    over(false);
    add(await filesOf(event.dataTransfer));
  });
  addEventListener("beforeunload", (event) => { if (waiting.length + sending.size) event.preventDefault(); });
  document.querySelector("#clear-uploads").addEventListener("click", clear);
  document.querySelector("#cancel-uploads").addEventListener("click", () => {
    for (const upload of [...waiting, ...sending]) upload.cancel();
  });
}

function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

// All files of a drop. Folders are opened, and their files are taken one by one.
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(within))).flat();
}

// A file or folder that cannot be read is left out, and the user is told.
function unread(entry) {
  document.querySelector("#uploads-unread").textContent += ` “${entry.name}” cannot be read.`;
  return [];
}

async function within(entry) {
  const found = [];
  try {
    if (entry.isFile) return [await new Promise((resolve, reject) => { entry.file(resolve, reject); })];
    const reader = entry.createReader();
    for (;;) {
      const batch = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
      if (!batch.length) return found;
      found.push(...(await Promise.all(batch.map(within))).flat());
    }
  } catch {
    return [...found, ...unread(entry)];
  }
}

function add(files) {
  for (const file of files) waiting.push(new Upload(file));
  advance();
}

function advance() {
  while (sending.size < AT_ONCE && waiting.length) waiting.shift().start();
  summarise();
  if (!waiting.length && !sending.size && finished) refresh();
}

function summarise() {
  const panel = document.querySelector("#uploads");
  panel.hidden = list.childElementCount === 0;
  const open = waiting.length + sending.size;
  const failed = list.querySelectorAll(".failed").length;
  const troubles = failed ? `, ${failed} not stored` : "";
  document.querySelector("#uploads-summary").textContent = open
    ? `Uploading ${open} ${open === 1 ? "file" : "files"}${troubles}`
    : `All uploads have ended${troubles}`;
  document.querySelector("#cancel-uploads").hidden = open < 2;
  document.querySelector("#clear-uploads").hidden = open > 0;
}

function clear() {
  list.replaceChildren();
  summarise();
}

// Shows the new files in the list below, once for all uploads that have just ended.
function refresh() {
  clearTimeout(refreshing);
  refreshing = setTimeout(() => {
    finished = 0;
    const shown = document.querySelector("#list");
    if (shown) htmx.ajax("GET", shown.dataset.here, { target: "#list", swap: "outerHTML" });
  }, 150);
}

class Upload {
  constructor(file) {
    this.file = file;
    this.item = template.content.cloneNode(true).firstElementChild;
    this.part("name").textContent = file.name;
    this.part("cancel").addEventListener("click", () => this.cancel());
    this.part("retry").addEventListener("click", () => this.retry());
    for (const name of ["cancel", "retry"]) {
      const label = name === "cancel" ? "Cancel" : "Try again";
      this.part(name).setAttribute("aria-label", `${label}: ${file.name}`);
    }
    this.part("bar").setAttribute("aria-label", file.name);
    this.show("waiting", `Waiting · ${size(file.size)}`);
    list.append(this.item);
    for (const old of [...list.querySelectorAll(".done")].slice(0, -LISTED)) old.remove();
  }

  part(name) {
    return this.item.querySelector(`[data-part=${name}]`);
  }

  start() {
    sending.add(this);
    this.samples = [[performance.now(), 0]];
    this.show("sending", `Sending · ${size(this.file.size)}`);
    this.transfer = send(this.file, address, {
      onProgress: (sent) => this.progressed(sent),
      onStoring: () => {
        this.part("bar").removeAttribute("value");
        this.show("sending", "Checking and storing…");
      },
    });
    this.transfer.done.then(
      () => this.end("done", `Done · ${size(this.file.size)}`),
      (error) => this.end("failed", error.message),
    );
  }

  progressed(sent) {
    const now = performance.now();
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > AVERAGED) this.samples.shift();
    const [then, before] = this.samples[0];
    const speed = now > then ? (sent - before) / (now - then) * 1000 : 0;
    const total = this.file.size;
    this.part("bar").value = total ? sent / total : 1;
    const left = speed > 0 ? ` · ${duration((total - sent) / speed)} left` : "";
    const percent = total ? Math.min(99, Math.floor(100 * sent / total)) : 99;
    this.show("sending", `Sending · ${percent} % of ${size(total)}${speed ? ` · ${size(speed)}/s` : ""}${left}`);
  }

  end(state, words) {
    sending.delete(this);
    this.show(state, words);
    if (state === "done") finished += 1;
    advance();
  }

  cancel() {
    const place = waiting.indexOf(this);
    if (place >= 0) {
      waiting.splice(place, 1);
      this.end("failed", "Cancelled.");
    } else this.transfer?.cancel();
  }

  retry() {
    this.part("bar").value = 0;
    this.show("waiting", `Waiting · ${size(this.file.size)}`);
    waiting.push(this);
    advance();
  }

  show(state, words) {
    this.item.className = `upload ${state}`;
    this.part("stage").textContent = words;
    this.part("bar").hidden = state === "done" || state === "failed";
    this.part("cancel").hidden = state === "done" || state === "failed";
    this.part("retry").hidden = state !== "failed";
  }
}

export function size(bytes) {
  if (bytes < 999.5) return `${Math.round(bytes)} bytes`;
  const units = ["KB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
