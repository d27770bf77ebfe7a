// A layer's table: sorts by any column and filters all units of the layer by words and measures.
// The page holds the table as it is; data comes by script tags with the first question asked of it.
"use strict";

{
  const renamed = new Set(); // notes on measures that were asked for by a former name
  const AT_ONCE = 200; // rows
  const MOST_LABELS = 4; // of a unit
  const byId = (id) => document.getElementById(id);
  const table = document.querySelector("table.units");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const filter = byId("filter");
  const more = byId("more");
  const leaves = document.querySelector(".leaves");
  const layer = Number(table.dataset.layer);
  const total = Number(table.dataset.total);
  let columns; // {name, digits, values: one of each unit}
  let labels; // of each unit
  let lowerLabels; // and what an output neuron is called
  let tokens; // the names of output neurons
  let words; // of each unit what a model said of it: text, model, a note
  let order = []; // of all units that pass the filter
  let shown = 0;
  let sort = { name: "unit", up: true };

  Atlas.columns = (_, found, names, said) => {
    columns = found;
    tokens = names;
    words = said;
  };
  Atlas.labels = (_, found) => {
    labels = found;
  };

  let loading;
  const loadAll = async () => {
    await Promise.all([`L${layer}/units.js`, `search/l${layer}.js`].map(Atlas.load));
    lowerLabels = labels.map((ofUnit, unit) =>
      [...ofUnit, ...(tokens ? [tokens[unit]] : []), ...(words?.[unit]?.slice(0, 2) ?? [])].map((text) =>
        text.toLowerCase(),
      ),
    );
  };
  const load = () => (loading ??= loadAll());

  const cellText = ({ values, digits }, unit) => {
    const value = values[unit];
    if (value === null) return "–";
    if (digits === null) return String(value);
    return digits === 0 ? Atlas.percent(value) : Atlas.number(value, digits);
  };

  const link = (address, text) => {
    const made = document.createElement("a");
    made.href = address;
    made.textContent = text;
    return made;
  };
  const row = (unit) => {
    const made = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.append(link(`N${unit}.html`, tokens?.[unit] ?? unit));
    made.append(head);
    const behaviours = made.insertCell();
    labels[unit].slice(0, MOST_LABELS).forEach((label, i) => {
      const behaviour = link(`N${unit}.html#b${i + 1}`, Atlas.visible(label));
      behaviour.className = `c${i + 1}`;
      behaviours.append(behaviour, " ");
    });
    if (labels[unit].length > MOST_LABELS) {
      const rest = document.createElement("span");
      rest.className = "more";
      rest.textContent = `+${labels[unit].length - MOST_LABELS}`;
      behaviours.append(rest);
    }
    if (words?.[unit]) {
      const said = document.createElement("span");
      const by = document.createElement("small");
      const [text, model, note] = words[unit].map(Atlas.visible);
      said.className = "said";
      by.textContent = `— ${model}${note && `, ${note}`}`;
      said.append(`“${text}” `, by);
      behaviours.append(said);
    }
    for (const column of columns) made.insertCell().textContent = cellText(column, unit);
    return made;
  };

  const show = (from) => {
    const rows = order.slice(from, from + AT_ONCE).map(row);
    if (from === 0) body.replaceChildren(...rows);
    else body.append(...rows);
    shown = from + rows.length;
    const left = order.length - shown;
    more.hidden = left <= 0;
    more.textContent = `Show ${Math.min(AT_ONCE, left)} more of ${left.toLocaleString("en")}`;
  };

  const COMPARE = {
    "<": (value, bound) => value < bound,
    ">": (value, bound) => value > bound,
    "<=": (value, bound) => value <= bound,
    "≤": (value, bound) => value <= bound,
    ">=": (value, bound) => value >= bound,
    "≥": (value, bound) => value >= bound,
    "=": (value, bound) => value === bound,
  };

  // Of a part of a filter a test of each unit; throws what is wrong with it.
  const testOf = (part) => {
    const match = /^([a-z_\d]+)(<=|>=|<|>|=|≤|≥)(-?[\d.]+)(%?)$/.exec(part);
    if (!match) return (unit) => lowerLabels[unit].some((label) => label.includes(part));
    const [, name, sign, digits, percentSign] = match;
    const column = columnOf(name);
    if (column && column.name !== name) renamed.add(`${name} is now called ${column.name}.`);
    const bound = Number(digits) / (percentSign ? 100 : 1);
    if (!column) {
      const names = columns.map((found) => found.name).join(", ");
      throw new Error(`There is no measure ${name}: use one of ${names}.`);
    }
    if (isNaN(bound)) throw new Error(`${digits} is not a number.`);
    return (unit) => column.values[unit] !== null && COMPARE[sign](column.values[unit], bound);
  };

  // A measure by its name, or by what filters called it until version 0.5.
  const columnOf = (name) =>
    columns.find((column) => column.name === name) ?? columns.find((column) => column.former && column.former === name);

  // The units that pass a filter, in their own order.
  const passing = (text) => {
    const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map(testOf);
    const units = Array.from({ length: total }, (_, unit) => unit);
    return units.filter((unit) => tests.every((test) => test(unit)));
  };

  // What has no value comes last, whichever way.
  const inOrderOf =
    ({ values }, up) =>
    (a, b) => {
      const [one, other] = [values[a], values[b]];
      if (one === null || other === null) return (one === null) - (other === null) || a - b;
      return ((one > other) - (one < other)) * (up ? 1 : -1) || a - b;
    };

  const apply = async () => {
    await load();
    renamed.clear();
    let said = "";
    try {
      order = passing(filter.value);
      if (filter.value.trim()) said = `${order.length.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    } catch (error) {
      order = [];
      said = error.message;
    }
    const column = columnOf(sort.name);
    if (column) sort.name = column.name;
    if (column) order.sort(inOrderOf(column, sort.up));
    else if (!sort.up) order.reverse();
    for (const head of heads) {
      if (head.dataset.column === sort.name) head.setAttribute("aria-sort", sort.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    byId("count").textContent = [said, ...renamed].filter(Boolean).join(" · ");
    if (leaves) leaves.hidden = true;
    show(0);
  };

  const remember = () => {
    const asked = new URLSearchParams();
    if (filter.value.trim()) asked.set("filter", filter.value.trim());
    if (sort.name !== "unit" || !sort.up) asked.set("sort", (sort.up ? "" : "-") + sort.name);
    history.replaceState(null, "", location.pathname + (asked.size ? `?${asked}` : ""));
  };
  const applyAndRemember = () => apply().then(remember);

  for (const head of heads) {
    const { column: name } = head.dataset;
    if (!name) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent.trim();
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      // The largest first, but for the number of the unit.
      const turns = sort.name === name && head.hasAttribute("aria-sort");
      sort = { name, up: turns ? !sort.up : name === "unit" };
      applyAndRemember();
    });
  }
  let typing;
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(applyAndRemember, 100);
  });
  filter.form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = shown;
    show(shown);
    body.rows[next].querySelector("a").focus();
  });

  const asked = new URLSearchParams(location.search);
  const wanted = asked.get("sort") ?? "";
  if (wanted) sort = { name: wanted.replace(/^-/, ""), up: wanted[0] !== "-" };
  filter.value = asked.get("filter") ?? "";
  if (wanted || filter.value) apply();
}
