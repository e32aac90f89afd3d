// What this browser remembers of uploads that have not ended: the address, and how to recognise the file.
const KEY = "occ.uploads";
const ALIVE = 15_000; // ms: an upload that was sent later than this ago is being sent by another tab
const SAMPLE = 16 << 10; // bytes of a file that are looked at in each of three places

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

function write(uploads) {
  try {
    localStorage.setItem(KEY, JSON.stringify(uploads));
  } catch { /* Nothing may be kept here. Uploads then cannot go on after the page was closed. */ }
}

export function remember(address, fingerprint) {
  write({ ...read(), [address]: { fingerprint, seen: Date.now() } });
}

export function forget(address) {
  const { [address]: _, ...others } = read();
  write(others);
}

// Tells other tabs that an upload is being sent here; or, with `isOver`, that it no longer is.
export function touch(address, isOver = false) {
  const uploads = read();
  if (uploads[address]) write({ ...uploads, [address]: { ...uploads[address], seen: isOver ? 0 : Date.now() } });
}

// Address → fingerprint of the uploads that were begun in this browser, and whether another tab sends them now.
export function recall() {
  const now = Date.now();
  return new Map(Object.entries(read()).map(([address, { fingerprint, seen }]) => [
    address, { fingerprint, isBusy: now - seen < ALIVE },
  ]));
}

// A short text that another file hardly has: size, time of the last change, and a hash of the beginning, the middle and the end.
export async function fingerprint(file) {
  const places = [0, Math.max(0, file.size / 2 - SAMPLE / 2), Math.max(0, file.size - SAMPLE)].map(Math.floor);
  const parts = await Promise.all(places.map((place) => file.slice(place, place + SAMPLE).arrayBuffer()));
  let low = 0xdeadbeef;
  let high = 0x41c6ce57;
  for (const part of parts) {
    for (const byte of new Uint8Array(part)) {
      low = Math.imul(low ^ byte, 2654435761);
      high = Math.imul(high ^ byte, 1597334677);
    }
  }
  return [file.size, file.lastModified, (low >>> 0).toString(16) + (high >>> 0).toString(16)].join("-");
}
