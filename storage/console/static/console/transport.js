// How one file gets to the service: a small one in one request, a large one by tus 1.0, which goes on where it was cut off.
import { ask, Lost, Refused } from "./http.js";
import { forget, remember, touch } from "./memory.js";
import { Control, persist } from "./patience.js";

const LARGE = 8 << 20; // bytes
const PATIENCE = 1000; // ms between two questions whether a file is stored
const BEAT = 5000; // ms between two signs of life
const TUS = { "Tus-Resumable": "1.0.0" };

export function isLarge(file) {
  return file.size > LARGE;
}

// Sends a file under a name.
//   addresses: `whole` takes small files, `parts` begins uploads of large ones.
//   begun: the fingerprint of the file and, once the upload of a large file has begun, its address. It is kept up to date.
//   on: `progress(bytes)`, `stage(name, share)` for "checking" and "storing", `wait(ms)` before another attempt.
// Returns `done`, a promise that ends when the file is stored, and `cancel`, `pause` and `resume`.
export function send(file, name, addresses, begun, on) {
  const control = new Control();
  const work = isLarge(file) ? new Parts(file, name, addresses.parts, begun, control, on) : undefined;
  const done = work ? work.run() : whole(file, name, addresses.whole, control, on);
  return {
    done,
    pause: () => control.hold(),
    resume: () => control.go(),
    cancel() {
      control.end();
      work?.drop();
    },
  };
}

async function whole(file, name, address, control, on) {
  const target = `${address}/${name.split("/").map(encodeURIComponent).join("/")}?distribution=false`;
  const request = await persist(() => control.do(ask("PUT", target, {
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
    onProgress: on.progress,
    onSent: () => on.stage("checking"),
  })), control, { onWait: on.wait });
  if (request.status !== 202) return;
  const job = request.getResponseHeader("Location");
  await followed(job, control, on, ({ state, progress, error }) => ({
    stage: { succeeded: "done", failed: "failed", cancelled: "failed" }[state] ?? "storing", progress, error,
  }));
}

// One upload in as many requests as it takes.
class Parts {
  constructor(file, name, endpoint, begun, control, on) {
    Object.assign(this, { file, name, endpoint, begun, control, on, offset: 0, beaten: 0 });
    if (this.address) remember(this.address, begun.fingerprint);
    this.leave = () => { if (this.address) touch(this.address, true); };
    addEventListener("pagehide", this.leave);
  }

  get address() {
    return this.begun.address;
  }

  async run() {
    const { control, on } = this;
    try {
      await persist(() => this.attempt(), control, { measure: () => this.offset, onWait: on.wait });
      on.stage("checking");
      await followed(this.address, control, on, (upload) => {
        if (["done", "failed"].includes(upload.stage)) this.forget(); // The user may try again: with a new upload.
        return upload;
      });
    } finally {
      removeEventListener("pagehide", this.leave);
      this.leave();
    }
  }

  async attempt() {
    try {
      if (!this.address) await this.begin();
      const head = await this.control.do(ask("HEAD", this.address, { headers: TUS }));
      this.offset = Number(head.getResponseHeader("Upload-Offset"));
      this.on.progress(this.offset);
      if (this.offset < this.file.size) await this.append();
    } catch (error) {
      if (!(error instanceof Refused) || !this.address) throw error;
      if (error.status === 409) throw new Lost("Another window goes on with this upload.");
      if (error.status !== 404) throw error;
      this.forget(); // It has expired, or was discarded elsewhere: the file is sent from its beginning.
      this.offset = 0;
      throw new Lost();
    }
  }

  async begin() {
    const metadata = Object.entries({ filename: this.name, fingerprint: this.begun.fingerprint });
    const request = await this.control.do(ask("POST", this.endpoint, {
      headers: {
        ...TUS,
        "Upload-Length": String(this.file.size),
        "Upload-Metadata": metadata.map(([key, value]) => `${key} ${encoded(value)}`).join(","),
      },
    }));
    this.begun.address = new URL(request.getResponseHeader("Location"), location.href).pathname;
    remember(this.address, this.begun.fingerprint);
  }

  async append() {
    const start = this.offset;
    const request = await this.control.do(ask("PATCH", this.address, {
      headers: { ...TUS, "Upload-Offset": String(start), "Content-Type": "application/offset+octet-stream" },
      body: this.file.slice(start),
      onProgress: (sent) => this.progressed(start + sent),
      onSent: () => this.on.stage("checking"),
    }));
    this.offset = Number(request.getResponseHeader("Upload-Offset"));
  }

  progressed(sent) {
    this.on.progress(sent);
    if (Date.now() - this.beaten < BEAT) return;
    this.beaten = Date.now();
    touch(this.address);
  }

  forget() {
    forget(this.address);
    this.begun.address = undefined;
  }

  drop() {
    if (!this.address) return;
    discard(this.address);
    this.begun.address = undefined;
  }
}

// Ends an upload that is not wanted any more, and frees what has arrived of it.
export function discard(address) {
  forget(address);
  ask("DELETE", address, { headers: TUS }).answer.catch(() => {}); // If this is lost, the upload expires.
}

// The service has all bytes and stores them in the background: ask until it has. `read` reads the stage of an answer.
async function followed(address, control, on, read) {
  for (;;) {
    const request = await persist(() => control.do(ask("GET", address)), control, { onWait: () => {} });
    const { stage, progress, error } = read(JSON.parse(request.responseText));
    if (stage === "done") return;
    if (stage === "failed") throw new Error(error?.detail ? `It could not be stored: ${error.detail}.` : "It could not be stored.");
    on.stage(stage === "storing" ? "storing" : "checking", progress?.total ? progress.done / progress.total : 0);
    await control.rest(PATIENCE);
    await control.ready();
  }
}

function encoded(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
