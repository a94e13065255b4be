// Keeps a history, and shows what each model makes of it.

import * as api from "./api.js";
import { element } from "./element.js";
import { focusSearch, watchSearch } from "./search.js";

const MOST_EVENTS = 200; // of which the service says how much they mattered
const SECONDS_BETWEEN_TRIES = 2;
const at = (id) => document.getElementById(id);

let models = {}; // which: what /health says of it
let history = []; // {id, title, time}, oldest first
let answers = {}; // which: {items, unknown}
let explained = null; // {which, id, title}: whose reasons are shown; null is the first of the first model
let newest = 0; // number of the newest question; answers to older ones are not shown
let again = null; // the timer of the next try, while the service is away

function remember() {
  const ids = history.map((event) => encodeURIComponent(event.id)).join(",");
  window.history.replaceState(null, "", ids ? `#${ids}` : window.location.pathname);
}

function recall() {
  const ids = window.location.hash.slice(1).split(",").filter(Boolean).flatMap(decoded);
  history = ids.slice(-MOST_EVENTS).map((id) => ({ id, title: null, time: now() }));
  explained = null;
}

// A link may break on its way: what is no id any more is left out.
function decoded(id) {
  try {
    return [decodeURIComponent(id)];
  } catch {
    return [];
  }
}

function now() {
  return Math.floor(Date.now() / 1000);
}

function add(id, title) {
  history = [...history, { id, title, time: now() }].slice(-MOST_EVENTS);
  explained = null;
  changed();
}

function remove(place) {
  history = history.filter((_, other) => other !== place);
  explained = null;
  changed();
}

function changed() {
  remember();
  showHistory([]);
  refresh();
}

// Asks every model again, then for the reasons.
async function refresh() {
  const asked = ++newest;
  try {
    await meet();
    const k = Number(at("k").value);
    const whichs = Object.keys(models);
    const told = history.length
      ? await Promise.all(whichs.map((which) =>
        api.recommend(history, which, models[which].reads_times, k, at("exclude").checked)))
      : [];
    if (asked !== newest) return;
    answers = Object.fromEntries(told.map((answer, place) => [whichs[place], answer]));
    recovered();
    showLists();
    await explain(asked);
  } catch (error) {
    if (asked === newest) failed(error);
  }
}

// Bundles may be exchanged at any time, and a service may come back with others.
async function meet() {
  const told = (await api.health()).models;
  if (told[explained?.which]?.fingerprint !== models[explained?.which]?.fingerprint) explained = null;
  models = told;
  const names = Object.values(models).map((model) =>
    `${model.name} (${model.items.toLocaleString("en")} items)`);
  at("models").textContent = names.join(" beside ");
}

async function explain(asked) {
  const able = Object.keys(models).filter((which) => answers[which]?.items.length);
  const target = explained || (able.length && best(able[0]));
  if (!target || !history.length) return showHistory([]);
  const reasons = await influence(target);
  if (asked !== newest) return;
  // Another model tells the titles of what it alone knows.
  const others = able.filter((which) => history.some((event, place) =>
    (event.title ?? reasons[place].title) === null && !answers[which].unknown.includes(event.id)));
  const told = [reasons, ...await Promise.all(others.map((which) => influence(best(which))))];
  if (asked !== newest) return;
  history.forEach((event, place) => {
    event.title = told.map((some) => some[place].title).find((title) => title !== null) ?? event.title;
  });
  showHistory(reasons, target);
}

function influence(target) {
  return api.influence(history, target.id, target.which, models[target.which].reads_times);
}

function best(which) {
  return { which, ...named(answers[which].items[0]) };
}

function named(item) {
  return { id: item.item_id, title: item.title };
}

function failed(error) {
  const away = error.status === 0 || error.status >= 500;
  at("trouble").textContent = away ? `${error.message} Trying again every ${SECONDS_BETWEEN_TRIES} seconds.` : error.message;
  at("trouble").hidden = false;
  at("key-form").hidden = error.status !== 401;
  if (error.status === 401) at("key").focus();
  if (away && !again) again = setTimeout(() => { again = null; refresh(); }, 1000 * SECONDS_BETWEEN_TRIES);
}

// What is refused may have been asked of a bundle that is gone.
function refused(error) {
  if ([404, 422].includes(error.status)) refresh();
  else failed(error);
}

function recovered() {
  clearTimeout(again);
  again = null;
  at("trouble").hidden = at("key-form").hidden = true;
}

// What is drawn anew keeps the focus where it was.
function redraw(place, ...children) {
  const focused = document.activeElement?.dataset?.focus;
  const inside = place.contains(document.activeElement);
  place.replaceChildren(...children);
  if (inside && focused) {
    const [kind, number] = [focused.replace(/\d+$/, ""), Number(focused.match(/\d+$/))];
    const same = [number, number - 1].map((n) => place.querySelector(`[data-focus="${kind}${n}"]`)).find(Boolean);
    same ? same.focus() : focusSearch();
  }
}

function showHistory(reasons, target = null) {
  const [absent = [], ...others] = Object.values(answers).map((answer) => answer.unknown);
  const unknown = new Set(absent.filter((id) => others.every((some) => some.includes(id))));
  const largest = Math.max(1e-9, ...reasons.map((reason) => Math.abs(reason.influence || 0)));
  at("history-title").textContent = history.length ? `History (${history.length})` : "History";
  at("why").textContent = explanation(reasons, target);
  at("clear").disabled = !history.length;
  redraw(at("history"), ...history.map((event, place) => {
    const weight = reasons[place]?.influence ?? null;
    const known = !unknown.has(event.id);
    return element("li", { class: known ? "" : "unknown" },
      element("span", { class: "what" }, element("span", { class: "title" }, event.title || event.id),
        element("span", { class: "id" }, known ? event.id : "not in the catalog, so skipped")),
      weight === null ? "" : bar(Math.abs(weight) / largest, signed(weight), weight < 0 ? "against" : "for"),
      button("Remove", `Remove ${event.title || event.id}`, `history-${place}`, () => remove(place), "×"));
  }));
}

function explanation(reasons, target) {
  if (!target) return "";
  const told = reasons.some((reason) => reason.influence !== null);
  if (!told) return "With two known events or more, bars show how much each of them mattered.";
  return `How much the score of “${target.title}” would fall without each event:`;
}

function signed(weight) {
  return `${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(2)}`;
}

function bar(share, text, kind) {
  const inner = element("span", { class: `bar ${kind}` });
  inner.style.width = `${Math.round(100 * share)}%`;
  return element("span", { class: "measure" }, element("span", { class: "track" }, inner),
    element("span", { class: "number" }, text));
}

function button(label, spoken, focus, act, text = label) {
  const made = element("button", { type: "button", "aria-label": spoken, title: label, "data-focus": focus }, text);
  made.addEventListener("click", act);
  return made;
}

function showLists() {
  const shown = Object.entries(answers);
  const several = Object.keys(models).length > 1;
  const n = shown.map(([, answer]) => answer.items.length);
  at("said").textContent = !history.length
    ? "Nothing to go on yet: find an item, or type its raw id. An empty search shows what is most popular."
    : n.some(Boolean) ? `${several ? "Two models answer" : `${n[0]} items follow`}; choose an item to add it to the history.`
      : "No item of this history is in the catalog, so there is nothing to go on.";
  at("lists").className = several ? "several" : "";
  redraw(at("lists"), ...shown.map(([which, answer]) => element("div", { class: "list" },
    several ? element("h3", {}, models[which].name) : "", itemList(which, answer.items, `${which}-`))));
  if (!history.length) at("similar-section").hidden = true;
}

// Items with their scores, best first; ``which`` model scored them, ``kind`` tells the lists of the page apart.
function itemList(which, items, kind) {
  const [best, worst] = [items[0]?.score, items.at(-1)?.score];
  return element("ol", { class: "items" }, ...items.map((item, place) => {
    const relative = best > worst ? 0.15 + 0.85 * (item.score - worst) / (best - worst) : 1;
    const share = kind === "similar-" ? Math.max(0, item.score) : relative; // a cosine is a share by itself
    return element("li", {},
      button("Add to the history", `Add ${item.title} to the history`, `${kind}add-${place}`,
        () => add(item.item_id, item.title),
        element("span", { class: "what" }, element("span", { class: "title" }, item.title),
          element("span", { class: "id" }, item.item_id))),
      bar(share, item.score.toFixed(2), "for"),
      element("span", { class: "row" },
        kind === "similar-" ? "" : button("Why?", `Why ${item.title}?`, `${kind}why-${place}`, () => {
          explained = { which, ...named(item) };
          explain(newest).catch(refused);
          at("history-title").scrollIntoView({ block: "nearest" });
        }),
        button("Similar", `Items similar to ${item.title}`, `${kind}similar-${place}`, () => showSimilar(which, item))));
  }));
}

async function showSimilar(which, item) {
  try {
    const told = await api.similar(item.item_id, which);
    at("similar-section").hidden = false;
    at("similar-of").textContent = `What ${models[which].name} takes for most like “${item.title}”; the score is a cosine.`;
    redraw(at("similar"), itemList(which, told.items, "similar-"));
    at("similar-section").scrollIntoView({ block: "nearest" });
    at("similar-title").focus();
  } catch (error) {
    refused(error);
  }
}

at("clear").addEventListener("click", () => {
  history = [];
  explained = null;
  answers = {};
  changed();
  focusSearch();
});
at("k").addEventListener("change", refresh);
at("exclude").addEventListener("change", refresh);
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(at("key").value);
  refresh();
});
window.addEventListener("hashchange", () => { recall(); changed(); });
watchSearch(add, failed);
recall();
changed();
