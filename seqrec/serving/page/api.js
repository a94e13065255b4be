// Asks the service. Every failure becomes a Failure with a sentence for the person who looks.

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const MOST_FOUND = 8;
let key = sessionStorage.getItem("key") || "";

export function useKey(given) {
  key = given;
  sessionStorage.setItem("key", given);
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Failure("The service does not answer.", 0);
  }
  const told = await answer.json().catch(() => null);
  if (answer.ok && told) return told;
  throw new Failure(told?.error?.message || `The service answered ${answer.status}.`, answer.status);
}

function post(path, body) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

export const health = () => ask("/health");

// What any model knows, each item once: the one of exactly this id first, then the most frequent ones.
export async function search(words) {
  const { models } = await health();
  const told = await Promise.all(Object.keys(models).map((model) =>
    ask(`/items?${new URLSearchParams({ search: words, limit: MOST_FOUND, model })}`)));
  const items = told.flatMap((some) => some.items);
  const exact = (item) => item.item_id === words.trim();
  return items
    .filter((item, place) => items.findIndex((other) => other.item_id === item.item_id) === place)
    .sort((one, other) => exact(other) - exact(one) || other.count - one.count)
    .slice(0, MOST_FOUND);
}

export const similar = (item, model) =>
  ask(`/similar/${encodeURIComponent(item)}?${new URLSearchParams({ model, k: 6 })}`);

export async function recommend(history, model, readsTimes, k, excludeSeen) {
  const told = await post("/recommend", {
    histories: [history.map((event) => event.id)],
    times: readsTimes ? [history.map((event) => event.time)] : null,
    k,
    exclude_seen: excludeSeen,
    model,
  });
  return told.answers[0];
}

export async function influence(history, target, model, readsTimes) {
  const told = await post("/influence", {
    history: history.map((event) => event.id),
    times: readsTimes ? history.map((event) => event.time) : null,
    target,
    model,
  });
  return told.events;
}
