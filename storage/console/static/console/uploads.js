// The list of uploads: files wait in it, are sent a few at a time, and say in words how far they are.
import { carriesFiles, filesOfDrop, filesOfPicker } from "./drops.js";
import { fingerprint, forget, recall } from "./memory.js";
import { discard, isLarge, send } from "./transport.js";

const AT_ONCE = 3;
const AVERAGED = 4000; // ms over which the speed is averaged
const LISTED = 200; // finished uploads that stay in the list

const waiting = [];
const sending = new Set();
const unfinished = new Set();
let list;
let template;
let addresses;
let again; // the unfinished upload for which a file is being chosen
let finished = 0;
let refreshing;

export function watchDrops() {
  const area = document.querySelector("#drop");
  if (!area) return;
  list = document.querySelector("#upload-list");
  addresses = { whole: area.dataset.address, parts: area.dataset.resumable };
  template = document.querySelector("#upload-template");
  for (const input of area.querySelectorAll("input[type=file][hidden]")) {
    input.addEventListener("change", () => {
      const files = filesOfPicker(input.files);
      input.value = "";
      if (input.id === "pick-again") again.continueWith(files[0]?.[0]);
      else add(files);
    });
  }
  for (const button of area.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => document.getElementById(button.dataset.opens).click());
  }
  watchPage((isOver) => area.classList.toggle("over", isOver));
  addEventListener("beforeunload", (event) => { if (waiting.length + sending.size) event.preventDefault(); });
  document.querySelector("#clear-uploads").addEventListener("click", clear);
  document.querySelector("#cancel-uploads").addEventListener("click", () => {
    for (const upload of [...waiting, ...sending]) upload.cancel();
  });
  listUnfinished(area.dataset.personal !== undefined);
}

// Files may be dropped anywhere on the page.
function watchPage(show) {
  let depth = 0;
  addEventListener("dragenter", (event) => { if (carriesFiles(event)) { depth += 1; show(true); } });
  addEventListener("dragleave", (event) => { if (carriesFiles(event) && (depth -= 1) <= 0) { depth = 0; show(false); } });
  addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    add(await filesOfDrop(event.dataTransfer, (name) => {
      document.querySelector("#uploads-unread").textContent += ` “${name}” cannot be read.`;
    }));
  });
}

// Takes files, as pairs of file and path, into the folder that the page shows. A file whose upload is unfinished goes on.
async function add(files) {
  const folder = document.querySelector("#list")?.dataset.folder ?? "";
  for (const [file, path] of files) {
    const print = isLarge(file) ? await fingerprint(file).catch(() => undefined) : undefined;
    const begun = [...unfinished].find((upload) => upload.begun.fingerprint === print);
    if (print && begun) begun.goOn(file);
    else waiting.push(new Upload(folder + path, file.size, { fingerprint: print ?? "" }, file));
  }
  advance();
}

// Uploads that a closed page has left. While nobody logs in, everybody's are in the service's list: only those that were
// begun in this browser are shown then.
async function listUnfinished(isPersonal) {
  const answer = await fetch(addresses.parts, { headers: { Accept: "application/json", "X-Requested-With": "console" } }).catch(() => undefined);
  if (!answer?.ok) return;
  const { uploads } = await answer.json();
  const known = recall();
  for (const { id, file_name: name, metadata, offset, length } of uploads) {
    const address = addresses.parts + id;
    const own = known.get(address);
    known.delete(address);
    const print = own?.fingerprint ?? /(?:^|,)fingerprint ([^,]*)/.exec(metadata)?.[1];
    if (own?.isBusy || !(own || isPersonal) || !print || !length) continue;
    const upload = new Upload(name, length, { address, fingerprint: own ? print : atob(print) });
    unfinished.add(upload);
    upload.show("unfinished", `Not finished · ${Math.floor(100 * offset / length)} % of ${size(length)}. Choose the file again to go on.`);
  }
  for (const [address, { isBusy }] of known) if (!isBusy) forget(address);
  summarise();
}

function advance() {
  while (sending.size < AT_ONCE && waiting.length) waiting.shift().start();
  summarise();
  if (!waiting.length && !sending.size && finished) refresh();
}

function summarise() {
  document.querySelector("#uploads").hidden = list.childElementCount === 0;
  const open = waiting.length + sending.size;
  const failed = list.querySelectorAll(".failed").length;
  const troubles = failed ? `, ${failed} not stored` : "";
  const ended = unfinished.size && list.childElementCount === unfinished.size ? "Uploads that were interrupted" : `All uploads have ended${troubles}`;
  document.querySelector("#uploads-summary").textContent = open
    ? `Uploading ${open} ${open === 1 ? "file" : "files"}${troubles}`
    : ended;
  document.querySelector("#cancel-uploads").hidden = open < 2;
  document.querySelector("#clear-uploads").hidden = open > 0 || list.childElementCount === unfinished.size;
}

function clear() {
  list.replaceChildren(...[...unfinished].map((upload) => upload.item));
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

const LABELS = { cancel: "Cancel", retry: "Try again", pause: "Pause", resume: "Go on", choose: "Choose the file", discard: "Discard" };
const SHOWN = {
  waiting: ["cancel"],
  sending: ["cancel"],
  parts: ["pause", "cancel"],
  paused: ["resume", "cancel"],
  failed: ["retry"],
  unfinished: ["choose", "discard"],
  done: [],
};

class Upload {
  constructor(name, total, begun, file) {
    Object.assign(this, { name, total, begun, file });
    this.item = template.content.cloneNode(true).firstElementChild;
    this.part("name").textContent = name;
    for (const [task, label] of Object.entries(LABELS)) {
      this.part(task).addEventListener("click", () => this[task]());
      this.part(task).setAttribute("aria-label", `${label}: ${name}`);
    }
    this.part("bar").setAttribute("aria-label", name);
    this.show("waiting", `Waiting · ${size(total)}`);
    list.append(this.item);
    for (const old of [...list.querySelectorAll(".done")].slice(0, -LISTED)) old.remove();
  }

  part(name) {
    return this.item.querySelector(`[data-part=${name}]`);
  }

  start() {
    sending.add(this);
    this.samples = [];
    this.sent = 0;
    this.isPaused = false;
    this.show(this.active, `Sending · ${size(this.total)}`);
    this.transfer = send(this.file, this.name, addresses, this.begun, {
      progress: (sent) => this.progressed(sent),
      stage: (stage, share) => this.reached(stage, share),
      wait: (ms) => this.show(this.active, `The line is down · going on in ${duration(ms / 1000)} · ${this.share()}`),
    });
    this.transfer.done.then(
      () => this.end("done", `Done · ${size(this.total)}`),
      (error) => this.end("failed", error.message),
    );
  }

  get active() {
    return isLarge(this.file) ? "parts" : "sending";
  }

  share() {
    return `${Math.min(99, this.total ? Math.floor(100 * this.sent / this.total) : 99)} % of ${size(this.total)}`;
  }

  progressed(sent) {
    if (this.isPaused) return;
    const now = performance.now();
    if (sent < this.sent) this.samples = [];
    this.sent = sent;
    this.samples.push([now, sent]);
    while (this.samples.length > 2 && now - this.samples[0][0] > AVERAGED) this.samples.shift();
    const [then, before] = this.samples[0];
    const speed = now > then ? (sent - before) / (now - then) * 1000 : 0;
    this.part("bar").value = this.total ? sent / this.total : 1;
    const left = speed > 0 ? ` · ${size(speed)}/s · ${duration((this.total - sent) / speed)} left` : "";
    this.show(this.active, `Sending · ${this.share()}${left}`);
  }

  reached(stage, share) {
    this.part("bar").removeAttribute("value");
    const percent = share ? ` · ${Math.floor(100 * share)} %` : "";
    this.show("sending", stage === "storing" ? `Storing${percent}…` : "Checking…");
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

  pause() {
    this.isPaused = true;
    this.transfer.pause();
    this.show("paused", `Paused · ${this.share()}`);
    this.part("resume").focus();
  }

  resume() {
    this.isPaused = false;
    this.show("parts", `Sending · ${this.share()}`);
    this.transfer.resume();
    this.part("pause").focus();
  }

  retry() {
    this.part("bar").value = 0;
    this.show("waiting", `Waiting · ${size(this.total)}`);
    waiting.push(this);
    advance();
  }

  choose() {
    again = this;
    document.querySelector("#pick-again").click();
  }

  async continueWith(file) {
    if (!file) return;
    if (await fingerprint(file).catch(() => "") === this.begun.fingerprint) {
      this.goOn(file);
      advance();
    } else this.show("unfinished", `“${file.name}” is another file, or has changed. Choose the file that was being uploaded.`);
  }

  goOn(file) {
    unfinished.delete(this);
    this.file = file;
    this.show("waiting", `Waiting · ${size(this.total)}`);
    waiting.push(this);
  }

  discard() {
    unfinished.delete(this);
    discard(this.begun.address);
    this.item.remove();
    summarise();
  }

  show(state, words) {
    this.item.className = `upload ${state}`;
    this.part("stage").textContent = words;
    this.part("bar").hidden = ["done", "failed", "unfinished"].includes(state);
    for (const task of Object.keys(LABELS)) this.part(task).hidden = !SHOWN[state].includes(task);
  }
}

function size(bytes) {
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
