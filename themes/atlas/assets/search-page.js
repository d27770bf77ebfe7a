// The search page: a query and filters, kept in the address, and what they find.
"use strict";

{
  const { search } = Atlas;
  const AT_ONCE = 20; // results
  const PAUSE = 120; // milliseconds without a key before a search
  const RANGES = ["behaviours", "effective", "density"];
  const SHOWN_UNITS = { density: 100 }; // what a filter shows of one
  const byId = (id) => document.getElementById(id);
  const form = byId("search");
  const input = byId("q");
  const status = byId("status");
  const list = byId("results");
  const more = byId("more");
  const further = byId("further");
  const panel = byId("filters");
  const title = document.title;
  let latest = 0; // the search whose answer is still wanted
  let result = null;
  let shown = 0;
  let reach = search.SHARDS;

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Text as nodes, with what is spelt out kept quiet.
  const visible = (text) => {
    const made = document.createDocumentFragment();
    let last = 0;
    for (const { index, 0: hidden } of text.matchAll(Atlas.hidden())) {
      made.append(text.slice(last, index), element("u", Atlas.spelled(hidden)));
      last = index + hidden.length;
    }
    made.append(text.slice(last));
    return made;
  };

  const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

  // --- The query and its filters, in the controls and in the address.

  const control = (end, name) => panel.querySelector(`[data-${end}=${name}]`);
  const isFiltering = (filters) => Object.values(filters).some((filter) => filter !== null);

  const readRange = (name) => {
    const ends = ["least", "most"].map((end) => {
      const { value } = control(end, name);
      return value === "" || isNaN(value) ? null : Number((value / (SHOWN_UNITS[name] ?? 1)).toPrecision(6));
    });
    return ends.every((end) => end === null) ? null : ends;
  };

  const asked = () => {
    const layers = Array.from(panel.querySelectorAll("[data-layer]:checked"), (box) => Number(box.dataset.layer));
    const filters = { layers: layers.length ? layers : null };
    for (const name of RANGES) filters[name] = readRange(name);
    return { query: input.value.trim(), filters };
  };

  // A number without an exponent, whose minus would part a range.
  const digits = (number) => number.toFixed(12).replace(/\.?0+$/, "");

  const addressOf = ({ query, filters }) => {
    const parameters = new URLSearchParams();
    if (query) parameters.set("q", query);
    if (filters.layers) parameters.set("layer", filters.layers.join(","));
    for (const name of RANGES.filter((range) => filters[range])) {
      parameters.set(name, filters[name].map((end) => (end === null ? "" : digits(end))).join("-"));
    }
    const text = parameters.toString().replaceAll("%2C", ",");
    return location.pathname + (text && `?${text}`);
  };

  // Sets the controls as an address says.
  const readAddress = (address) => {
    const parameters = new URLSearchParams(address);
    const layers = new Set(parameters.getAll("layer").join(",").split(","));
    input.value = parameters.get("q") ?? "";
    for (const box of panel.querySelectorAll("[data-layer]")) box.checked = layers.has(box.dataset.layer);
    for (const name of RANGES) {
      const match = /^([\d.]*)-([\d.]*)$/.exec(parameters.get(name) ?? "") ?? ["", "", ""];
      ["least", "most"].forEach((end, i) => {
        const value = match[i + 1] === "" ? NaN : match[i + 1] * (SHOWN_UNITS[name] ?? 1);
        control(end, name).value = isNaN(value) ? "" : Number(value.toPrecision(6));
      });
    }
    if (isFiltering(asked().filters)) panel.open = true;
  };

  // --- Results.

  const item = (hit) => {
    const { layer, unit, behaviour, place } = search.behaviour(hit.number);
    const made = element("li");
    const link = element("a");
    const meta = element("p", undefined, "meta");
    link.href = `L${layer}/N${unit}.html#b${behaviour}`;
    link.append(element("span", "", "label"), " ", element("span", Atlas.unitName(layer, unit), "id"));
    if (hit.share) {
      const term = element("span", "", "term");
      term.append(visible(hit.term));
      meta.append(element("b", Atlas.percent(hit.share / 1000)), " of it is ", term);
    } else if (hit.labelled || hit.term !== null) meta.append(element("span", "In its label", "reason"));
    else meta.append(hit.shown ? "In its example" : "Passes the filters");
    const others = search.count(place);
    if (others > 1) meta.append(`, behaviour ${behaviour} of ${others}`);
    made.append(link, meta, element("p", undefined, "example"));
    made.dataset.number = hit.number;
    return made;
  };

  // Which characters of a text belong to words of the query, 1 or 0 for each.
  const marksOf = (text, parts) => {
    const marks = new Uint8Array(text.length);
    const there = search.pieces(text);
    for (const { words, begins } of parts) {
      const isLast = (j) => j === words.length - 1;
      const fits = (first) =>
        words.every((word, j) => {
          const found = there[first + j].word;
          return found === word || (begins && isLast(j) && found.startsWith(word));
        });
      for (let first = 0; words.length && first + words.length <= there.length; first++) {
        if (fits(first)) marks.fill(1, there[first].start, there[first + words.length - 1].end);
      }
    }
    return marks;
  };

  // A part of a text as nodes, the words of the query in elements of their own.
  const marked = (whole, marks, from = 0, to = whole.length) => {
    const made = document.createDocumentFragment();
    for (let start = from, end; start < to; start = end) {
      end = start + 1;
      while (end < to && marks[end] === marks[start]) end++;
      const run = visible(whole.slice(start, end));
      if (marks[start]) {
        const hit = element("span", undefined, "hit");
        hit.append(run);
        made.append(hit);
      } else made.append(run);
    }
    return made;
  };

  const example = ({ before, key, after }, parts) => {
    const whole = before + key + after;
    const marks = marksOf(whole, parts);
    const made = document.createDocumentFragment();
    const keyEnd = before.length + key.length;
    const mark = element("mark");
    made.append(marked(whole, marks, 0, before.length));
    if (/[^ ]/.test(key)) mark.append(marked(whole, marks, before.length, keyEnd));
    else mark.append("␣".repeat(Math.max(1, key.length)));
    made.append(mark);
    made.append(marked(whole, marks, keyEnd));
    return made;
  };

  // What models said, with the words of the query marked: the first that has one of them, else the first of all.
  const words = (said, parts) => {
    const [text, model, note] = said.find(([each]) => marksOf(each, parts).includes(1)) ?? said[0];
    const made = element("p", "“", "said");
    made.append(marked(text, marksOf(text, parts)), "” ");
    made.append(element("small", Atlas.visible(`— ${model}${note && `, ${note}`}`)));
    return made;
  };

  // Fills in label and example, with the words of the query marked in it.
  const fill = async (made) => {
    try {
      const text = await search.text(Number(made.dataset.number));
      made.querySelector(".label").replaceChildren(visible(text.label));
      made.querySelector(".example").replaceChildren(example(text, result.parts));
      if (text.said.length) {
        made.querySelector("a").after(words(text.said, result.parts));
        const reason = made.querySelector(".reason");
        const inLabel = marksOf(text.label, result.parts).includes(1);
        if (reason && !inLabel && made.querySelector(".said .hit")) reason.textContent = "In its explanation";
      }
      made.classList.add("there");
    } catch (error) {
      status.textContent = error.message;
    }
  };

  // Examples come from as many files as there are results; those in sight are loaded.
  const inSight = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        inSight.unobserve(target);
        fill(target);
      }
    },
    { rootMargin: "100px" },
  );

  const extend = (to) => {
    const made = result.hits.slice(shown, to).map(item);
    list.append(...made);
    for (const entry of made) inSight.observe(entry);
    shown = Math.min(to, result.hits.length);
    more.hidden = shown >= result.hits.length;
    more.textContent = `Show ${counted(Math.min(AT_ONCE, result.hits.length - shown), "more", "more")}`;
    return made;
  };

  // A unit that a query names, before what its words find.
  const namedItem = (unit) => {
    const made = element("li", undefined, "named");
    const link = element("a");
    const label = unit.behaviour ? `Behaviour ${unit.behaviour} of this unit` : "The unit itself";
    link.href = unit.page;
    link.append(element("span", label, "label"), " ", element("span", unit.name, "id"));
    made.append(link, element("p", counted(search.count(unit.place), "behaviour", "behaviours"), "meta"));
    return made;
  };

  const answering = (count) => counted(count, "behaviour activates on", "behaviours activate on");

  const summaryOfHits = ({ hits, parts, expression }, quoted) => {
    const answers = hits.filter((hit) => hit.share > 0).length;
    const phrases = hits.filter((hit) => hit.phrase === true).length;
    const others = hits.length - answers;
    if (expression) {
      return `${answering(answers)} matching words, ${counted(others, "more has", "more have")} a matching label`;
    }
    if (parts.length > 1 && phrases) {
      const showing = counted(phrases, "behaviour shows", "behaviours show");
      const rest = counted(hits.length - phrases, "more has", "more have");
      return `${showing} ${quoted} in a row, ${rest} each of the words`;
    }
    if (parts.length > 1) {
      const found = counted(hits.length, "behaviour activates on or contains", "behaviours activate on or contain");
      return `${found} each word of ${quoted}`;
    }
    if (!answers) return `No behaviour activates on ${quoted}; ${counted(others, "contains", "contain")} it`;
    const rest = others ? `, ${counted(others, "more contains", "more contain")} it` : "";
    return `${answering(answers)} ${quoted}${rest}`;
  };

  const summaryOfCut = ({ word, answering: answers, showing }) =>
    ` “${Atlas.visible(word)}” is frequent: ${answering(answers)} it and ${showing.toLocaleString("en")} contain it, ` +
    "of which not all are looked through.";

  const summary = (found) => {
    const { hits, query } = found;
    if (found.error) return found.error;
    if (!query && !found.filtered) return "";
    if (!query) {
      const passing = counted(hits.length, "behaviour passes", "behaviours pass");
      return `${passing} the filters, in the order of the atlas.`;
    }
    const within = found.filtered ? " within the filters" : "";
    const quoted = `“${Atlas.visible(query)}”`;
    if (!hits.length && found.units.length) return `${counted(found.units.length, "unit", "units")} of that name.`;
    if (!hits.length) return `No behaviour matches ${quoted}${within || " here"}.`;
    return `${summaryOfHits(found, quoted)}${within}.${found.cut.map(summaryOfCut).join("")}`;
  };

  const show = (found, count) => {
    result = found;
    inSight.disconnect();
    list.replaceChildren();
    shown = 0;
    status.textContent = summary(found);
    for (const unit of found.units) list.append(namedItem(unit));
    extend(count ?? AT_ONCE);
    further.hidden = !found.more && !found.shardsLeft;
    further.textContent = found.more
      ? `Look through more words, from “${Atlas.visible(found.more)}” on`
      : `Look through the words of ${counted(found.shardsLeft ?? 0, "more file", "more files")}`;
  };

  const run = async (count) => {
    const turn = ++latest;
    const { query, filters } = asked();
    document.title = query ? `${Atlas.visible(query)}, ${title}` : title;
    byId("help").open = !query && !isFiltering(filters);
    byId("clear").hidden = !isFiltering(filters);
    list.setAttribute("aria-busy", "true");
    try {
      const found = await search.find(query, filters, reach, () => turn === latest);
      if (turn === latest) show(found, count);
    } catch (error) {
      if (turn === latest) status.textContent = error.message;
    }
    if (turn === latest) list.removeAttribute("aria-busy");
  };

  // --- Keys, and the way back.

  // What was asked for with Enter keeps its place in the history; what is only typed is replaced by what is typed next.
  const remember = (entered) => {
    const address = addressOf(asked());
    const isNew = address !== location.pathname + location.search;
    const before = history.state?.asked;
    if (isNew && before) history.pushState({ asked: entered }, "", address);
    else history.replaceState({ asked: entered || (before && !isNew) }, "", address);
  };

  let typing;
  const changed = () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      reach = search.SHARDS;
      remember(false);
      run();
    }, PAUSE);
  };
  input.addEventListener("input", changed);
  panel.addEventListener("input", changed);
  byId("clear").addEventListener("click", () => {
    for (const box of panel.querySelectorAll("input")) {
      box.checked = false;
      if (box.type !== "checkbox") box.value = "";
    }
    changed();
    input.focus();
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(typing);
    remember(true);
    await search.open();
    const unit = search.unit(input.value.trim());
    if (unit) {
      location.href = unit.page;
      return;
    }
    reach = search.SHARDS;
    run();
  });
  addEventListener("popstate", (event) => {
    readAddress(location.search);
    run(event.state?.shown);
  });
  // What was shown is shown again when a reader comes back from a result.
  addEventListener("pagehide", () => {
    history.replaceState({ ...history.state, shown: Math.max(shown, AT_ONCE), reach, top: scrollY }, "");
  });

  more.addEventListener("click", () => {
    const [first] = extend(shown + AT_ONCE);
    first?.querySelector("a").focus();
  });
  further.addEventListener("click", () => {
    reach += search.SHARDS;
    run(shown);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (!step || (at < 0 && (step < 0 || document.activeElement !== input))) return;
    event.preventDefault();
    const next = at + step;
    if (next < 0) input.focus();
    else if (links[next]) links[next].focus();
    else if (!more.hidden) more.focus();
  });

  const begin = async () => {
    const back = history.state; // there where a reader comes back
    readAddress(location.search);
    reach = back?.reach ?? reach;
    try {
      await search.open();
    } catch (error) {
      status.textContent = error.message;
      return;
    }
    const unit = back ? null : search.unit(input.value.trim());
    if (unit && !isFiltering(asked().filters)) {
      location.replace(unit.page);
      return;
    }
    if (input.value) remember(true);
    else input.focus();
    await run(back?.shown);
    if (back?.top) scrollTo(0, back.top);
  };
  begin();
}
