// Trying again after the line broke: after longer and longer pauses, and at once when the browser is online again.
import { Lost } from "./http.js";

const FIRST = 1000; // ms before the second attempt
const LONGEST = 30_000; // ms between two attempts
const MOST = 12; // attempts in a row that get nothing done

// A switch that a user turns: work goes on, is held, or is over.
export class Control {
  state = "on";
  abort = () => {}; // stops the request that is under way
  #wake = () => {};

  hold() {
    if (this.state !== "on") return;
    this.state = "held";
    this.abort();
    this.#wake();
  }

  go() {
    if (this.state !== "held") return;
    this.state = "on";
    this.#wake();
  }

  end() {
    this.state = "over";
    this.abort();
    this.#wake();
  }

  // Waits for some ms, or until the switch is turned.
  async rest(ms) {
    await new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        removeEventListener("online", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      addEventListener("online", end);
      this.#wake = end;
    });
  }

  // Waits while the work is held. Fails when it is over.
  async ready() {
    while (this.state === "held") await this.rest(2 ** 30);
    if (this.state === "over") throw new Error("Cancelled.");
  }

  // Does a request, which `end` and `hold` abort, and returns its answer.
  async do({ answer, abort }) {
    this.abort = abort;
    try {
      return await answer;
    } finally {
      this.abort = () => {};
    }
  }
}

// Calls `attempt` until it succeeds, and returns its value. `measure` says how much is done: attempts that get on do not count.
// `onWait` is called with the ms until the next attempt.
export async function persist(attempt, control, { measure = () => 0, onWait }) {
  let failures = 0;
  let before = measure();
  for (;;) {
    await control.ready();
    try {
      return await attempt();
    } catch (error) {
      if (control.state !== "on") continue;
      if (!(error instanceof Lost)) throw error;
      failures = measure() > before ? 1 : failures + 1;
      before = measure();
      if (failures >= MOST) throw error;
      const pause = Math.max(error.wait, Math.min(LONGEST, FIRST * 2 ** (failures - 1)));
      onWait(pause);
      await control.rest(pause);
    }
  }
}
