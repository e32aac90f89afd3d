// How one file gets to the service. Everything about sending is here: a resumable protocol can take its place.

const PATIENCE = 1000; // ms between two questions whether a file is stored

// Sends a file to the address of uploads. Calls `onProgress` with the bytes that have been sent, and `onStoring` when all of them have been.
// Returns an object with `done`, a promise that ends when the file is stored, and `cancel`.
export function send(file, address, { onProgress, onStoring }) {
  const request = new XMLHttpRequest();
  let cancelled = false;
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.upload.onload = onStoring;
    request.onerror = () => reject(new Error("The connection was lost."));
    request.onabort = () => reject(new Error("Cancelled."));
    request.onload = () => {
      if (request.status === 202) resolve(stored(request.getResponseHeader("Location"), () => cancelled));
      else if (request.status < 300) resolve();
      else reject(new Error(words(request)));
    };
  });
  request.open("PUT", `${address}/${encodeURIComponent(file.name)}?distribution=false`);
  request.setRequestHeader("Accept", "application/json");
  request.setRequestHeader("X-Requested-With", "console");
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.send(file);
  return {
    done,
    cancel() {
      cancelled = true;
      request.abort();
    },
  };
}

// The service has all bytes and stores them in the background: ask until it has.
async function stored(address, isCancelled) {
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, PATIENCE); });
    if (isCancelled()) throw new Error("Cancelled.");
    let answer;
    try {
      answer = await fetch(address, { headers: { Accept: "application/json", "X-Requested-With": "console" } });
    } catch {
      continue; // The connection may come back.
    }
    if (!answer.ok && answer.status < 500) throw new Error("The service no longer knows this upload.");
    const job = answer.ok ? await answer.json() : { state: "queued" };
    if (job.state === "succeeded") return;
    if (job.state === "failed" || job.state === "cancelled") {
      throw new Error(job.error?.detail ? `It could not be stored: ${job.error.detail}.` : "It could not be stored.");
    }
  }
}

const PLAIN = {
  401: "Your session has ended. Log in again.",
  403: "You may not upload files.",
  413: "The file is too large for this service.",
  429: "Too much at once. Try again in a minute.",
  507: "There is no room left.",
};

function words(request) {
  let problem = {};
  try {
    problem = JSON.parse(request.responseText);
  } catch { /* The answer comes from a proxy. */ }
  const details = Object.values(problem.errors ?? {}).flat().join(" ");
  if (problem.code?.endsWith("_quota_exceeded")) return "This is more than you may store. Delete files to make room.";
  return PLAIN[request.status] ?? (details || problem.detail || `The service answered ${request.status}.`);
}
