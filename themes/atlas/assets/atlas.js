// What pages gain with scripts: keys, random, links from tokens. They read without.
// The one global is Atlas: what scripts share, and the functions that data files call, since scripts of a folder may
// read no other file.
"use strict";

{
  const Atlas = (window.Atlas ??= {});
  const root = document.body.dataset.root;
  const asked = new Map();

  // Data comes by script tags, which work from a folder too; each is asked for once.
  Atlas.load = (name) => {
    if (!asked.has(name)) {
      const loaded = new Promise((resolve) => {
        const script = document.createElement("script");
        script.src = root + name;
        script.onload = script.onerror = resolve;
        document.head.append(script);
      });
      asked.set(name, loaded);
    }
    return asked.get(name);
  };

  // Layers with their units, and where the shards of the search index begin.
  Atlas.index = (directory) => {
    Atlas.directory = directory;
  };
  // What a unit is called where its page is linked to: an output neuron after its token, of which there is one layer.
  Atlas.unitName = (layer, unit) => Atlas.directory.tokens?.[unit] ?? `L${layer}/N${unit}`;

  // What cannot be seen, of Atlas.constants, and how it is spelt out; `plain` of the builder does the same.
  let hidden;
  Atlas.hidden = () => (hidden ??= new RegExp(Atlas.constants.hidden, "gu"));
  Atlas.spelled = (character) =>
    Atlas.constants.signs[character] ?? `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  Atlas.visible = (text) => text.replace(Atlas.hidden(), Atlas.spelled);

  document.documentElement.classList.add("js");

  // Where the atlas has an address, copies on the same host ask it for a newer edition; from a folder nothing is asked.
  const home = document.currentScript.dataset.home;
  if (home && new URL(home).origin === location.origin) Atlas.load("assets/edition-notice.js");

  // A random unit, each as likely; the link has a place of its own where scripts are off.
  const openRandom = async () => {
    await Atlas.load("search/index.js");
    const { layers } = Atlas.directory;
    let place = Math.floor(Math.random() * layers.reduce((sum, [, units]) => sum + units, 0));
    for (const [layer, units] of layers) {
      if (place < units) {
        location.href = `${root}L${layer}/N${place}.html`;
        return;
      }
      place -= units;
    }
  };
  for (const link of document.querySelectorAll("[data-random]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      openRandom();
    });
  }

  // The tokens of a behaviour lead to search, which needs scripts as they do.
  for (const token of document.querySelectorAll(".sum code")) {
    const link = document.createElement("a");
    const query = token.textContent.replace(/^␣+(?=.)|␣+$/g, "") || "␣";
    link.href = `${root}search.html?q=${encodeURIComponent(query)}`;
    token.replaceWith(link);
    link.append(token);
  }

  // The next behaviour from where the page is, or the last one.
  const stepToBehaviour = (step) => {
    const sections = [...document.querySelectorAll(".behaviour, .rares li")];
    const next = sections[sections.findIndex(({ id }) => `#${id}` === location.hash) + step];
    if (!next) return;
    history.replaceState(null, "", `#${next.id}`);
    next.scrollIntoView();
    (next.querySelector("h2 a, h3 a") ?? next).focus({ preventScroll: true });
  };

  // The same unit of the layer above or below, where it is there. The page names both: hosts may change addresses.
  const stepToLayer = async (step) => {
    const { layer, unit } = document.body.dataset;
    if (unit === undefined) return;
    await Atlas.load("search/index.js");
    const { layers } = Atlas.directory;
    const next = layers[layers.findIndex(([number]) => number === Number(layer)) + step];
    if (next) location.href = `${root}L${next[0]}/N${Math.min(Number(unit), next[1] - 1)}.html`;
  };

  const KEYS = [
    ["← →", "previous, next unit"],
    ["Shift ↑ ↓", "same unit, layer before or after"],
    ["b  B", "next, previous behaviour"],
    ["r", "a random unit"],
    ["/", "search"],
    ["?", "this help"],
  ];

  const helpDialog = () => {
    const dialog = document.createElement("dialog");
    dialog.id = "keys";
    dialog.setAttribute("aria-label", "Keys");
    const list = document.createElement("dl");
    for (const [keys, meaning] of KEYS) {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      const key = document.createElement("kbd");
      const description = document.createElement("dd");
      key.textContent = keys;
      description.textContent = meaning;
      term.append(key);
      row.append(term, description);
      list.append(row);
    }
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.append(list, close);
    document.body.append(dialog);
    return dialog;
  };
  const showHelp = () => {
    const dialog = document.getElementById("keys") ?? helpDialog();
    if (!dialog.open) dialog.showModal();
  };

  const click = (selector) => document.querySelector(selector)?.click();
  const focusSearch = () =>
    (document.querySelector(".find.large input") ?? document.querySelector(".find input")).focus();

  // Keys by what the event calls them; true where the browser is to do nothing of its own.
  const ACTIONS = {
    "Shift ArrowUp": () => (stepToLayer(-1), true),
    "Shift ArrowDown": () => (stepToLayer(1), true),
    ArrowLeft: () => click("a[rel=prev]"),
    ArrowRight: () => click("a[rel=next]"),
    r: () => void openRandom(),
    b: () => stepToBehaviour(1),
    B: () => stepToBehaviour(-1),
    "?": () => showHelp(),
    "/": () => (focusSearch(), true),
  };

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT|CANVAS)$/.test(event.target.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey || typing || document.querySelector("dialog[open]")) return;
    const name = event.shiftKey && event.key.startsWith("Arrow") ? `Shift ${event.key}` : event.key;
    if (Object.hasOwn(ACTIONS, name) && ACTIONS[name]() === true) event.preventDefault();
  });
}
