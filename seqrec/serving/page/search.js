// The field that finds items by their title, and takes raw ids as they are.

import * as api from "./api.js";
import { element } from "./element.js";

const field = document.getElementById("search");
const list = document.getElementById("found");
let found = [];
let chosen = -1;
let newest = 0;

// Calls add(id, title) for what is chosen, and failed(error) where the service cannot be asked.
export function watchSearch(add, failed) {
  let pause;

  async function look() {
    const asked = ++newest;
    try {
      const items = await api.search(field.value);
      if (asked === newest && document.activeElement === field) show(items);
    } catch (error) {
      close();
      failed(error);
    }
  }

  function show(items) {
    found = items;
    chosen = -1;
    list.replaceChildren(...items.map((item, place) => {
      const option = element("li", { id: `found-${place}`, role: "option", "aria-selected": "false" },
        element("span", { class: "title" }, item.title), element("span", { class: "id" }, item.item_id));
      option.addEventListener("mousedown", (event) => {
        event.preventDefault();
        take(place);
      });
      return option;
    }));
    if (!items.length) list.append(element("li", { class: "nothing" }, "No item has these words; Enter adds them as a raw id."));
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
  }

  function close() {
    clearTimeout(pause);
    newest++;
    list.hidden = true;
    chosen = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function choose(place) {
    list.children[chosen]?.setAttribute("aria-selected", "false");
    chosen = (place + found.length) % found.length;
    const option = list.children[chosen];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", option.id);
  }

  function take(place) {
    const typed = field.value.trim();
    const item = found[place] || { item_id: typed, title: null };
    field.value = "";
    close();
    found = [];
    if (item.item_id) add(item.item_id, item.title);
  }

  // Enter without a choice: the item whose raw id this is, else the only one found, else a raw id as it stands.
  async function enter() {
    const typed = field.value.trim();
    if (!typed) return;
    try {
      found = await api.search(typed);
    } catch (error) {
      failed(error);
      return;
    }
    const exact = found.findIndex((item) => item.item_id === typed);
    take(exact >= 0 ? exact : found.length === 1 ? 0 : -1);
  }

  field.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(look, 120);
  });
  field.addEventListener("focus", look);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    else if (event.key === "Enter") chosen >= 0 ? take(chosen) : enter();
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden) look();
      else if (found.length) choose(chosen + (event.key === "ArrowDown" ? 1 : chosen < 0 ? 0 : -1));
    } else return;
    event.preventDefault();
  });
}

export function focusSearch() {
  field.focus();
}
