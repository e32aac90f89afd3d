// One request, and what went wrong with it in words. XMLHttpRequest is used because fetch does not tell how much it has sent.

// The line broke, or the service cannot answer now: the same request may succeed later.
export class Lost extends Error {
  constructor(message = "The connection was lost.", wait = 0) {
    super(message);
    this.wait = wait; // ms that the service asks to wait
  }
}

// The service refuses the request. Asking again would not help.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const PLAIN = {
  401: "Your session has ended. Log in again.",
  403: "You may not upload files.",
  413: "The file is too large for this service.",
  507: "There is no room left.",
};

// Sends a request, and returns `answer`, a promise of the XMLHttpRequest, and `abort`.
// The promise fails with Lost or Refused. `onProgress` is called with the bytes that have been sent.
export function ask(method, address, { headers = {}, body = null, onProgress, onSent } = {}) {
  const request = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    request.onerror = () => reject(new Lost());
    request.onabort = () => reject(new Lost("Stopped."));
    request.onload = () => {
      if (request.status < 300) resolve(request);
      else if (request.status === 429 || (request.status >= 500 && request.status !== 507)) reject(later(request));
      else reject(new Refused(request.status, words(request)));
    };
  });
  if (onProgress) request.upload.onprogress = (event) => onProgress(event.loaded);
  if (onSent) request.upload.onload = onSent;
  request.open(method, address);
  for (const [name, value] of Object.entries({ Accept: "application/json", "X-Requested-With": "console", ...headers })) {
    request.setRequestHeader(name, value);
  }
  request.send(body);
  return { answer, abort: () => request.abort() };
}

function later(request) {
  const wait = Number(request.getResponseHeader("Retry-After")) || 0;
  return new Lost(request.status === 429 ? "The service has too much to do." : words(request), wait * 1000);
}

function words(request) {
  let problem = {};
  try {
    problem = JSON.parse(request.responseText);
  } catch { /* The answer comes from a proxy. */ }
  const details = Object.values(problem.errors ?? {}).flat().join(" ");
  if (problem.code?.endsWith("_quota_exceeded")) return "This is more than you may store. Delete files to make room.";
  return PLAIN[request.status] ?? (details || problem.detail || `The service answered ${request.status}.`);
}
