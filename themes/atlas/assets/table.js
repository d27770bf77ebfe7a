// A layer's table: sorts by any column and filters all units of the layer by words and measures.
// The page holds the table as it is; data comes by script tags with the first question asked of it.
"use strict";
(function () {
  var AT_ONCE = 200;
  var table = document.querySelector("table.units"), body = table.tBodies[0];
  var layer = +table.dataset.layer, total = +table.dataset.total, root = document.body.dataset.root;
  var heads = Array.from(table.tHead.rows[0].cells);
  var filter = document.getElementById("filter"), count = document.getElementById("count");
  var more = document.getElementById("more"), leaves = document.querySelector(".leaves");
  var columns, labels, lower, order = [], shown = 0, sort = { name: "unit", up: true };

  window.atlasColumns = function (_, data) { columns = data; };
  window.atlasLabels = function (_, data) { labels = data; };

  var loading;
  function load() {
    loading = loading || Promise.all(["L" + layer + "/units.js", "search/l" + layer + ".js"].map(atlasLoad)).then(function () {
      lower = labels.map(function (words) { return words.map(function (word) { return word.toLowerCase(); }); });
    });
    return loading;
  }

  // As `percent` and `number` in atlas_builder/site/text.py write them: of two numbers as near, Python takes the even one.
  function percent(value) {
    if (value > 0 && value <= 0.005) return "<1%";
    if (value >= 0.995 && value < 1) return ">99%";
    var whole = Math.round(value * 100);
    return whole - (value * 100 % 1 === 0.5 && whole % 2) + "%";
  }
  function rounded(value, digits) {
    var up = value.toPrecision(digits), all = value.toPrecision(60).replace(/e.*|\D/g, "").replace(/^0+/, "");
    var half = /^50*$/.test(all.slice(digits)) && "13579".indexOf(up.replace(/e.*/, "").slice(-1)) >= 0;
    return +(half ? (value * (1 - 1e-12)).toPrecision(digits) : up);
  }
  function number(value, digits) {
    var near = rounded(value, digits), size = Math.abs(near);
    var text = size === 0 || (size >= 1e-4 && size < Math.pow(10, digits)) ? String(near) : near.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
    return text.replace(/-/g, "−");
  }
  function cell(column, unit) {
    var value = column.values[unit];
    if (value === null) return "–";
    return column.digits === 0 ? percent(value) : column.digits === null ? String(value) : number(value, column.digits);
  }

  function row(unit) {
    var made = document.createElement("tr"), head = made.appendChild(document.createElement("th"));
    head.scope = "row";
    link(head, "N" + unit + ".html", String(unit));
    var words = made.insertCell();
    labels[unit].slice(0, 4).forEach(function (label, place) {
      link(words, "N" + unit + ".html#b" + (place + 1), atlasVisible(label)).className = "c" + (place + 1);
      words.append(" ");
    });
    if (labels[unit].length > 4) words.appendChild(document.createElement("span")).textContent = "+" + (labels[unit].length - 4);
    columns.forEach(function (column) { made.insertCell().textContent = cell(column, unit); });
    return made;
  }
  function link(parent, address, text) {
    var made = parent.appendChild(document.createElement("a"));
    made.href = address;
    made.textContent = text;
    return made;
  }

  function show(from) {
    var part = order.slice(from, from + AT_ONCE).map(row);
    if (from === 0) body.replaceChildren.apply(body, part); else body.append.apply(body, part);
    shown = from + part.length;
    more.hidden = shown >= order.length;
    more.textContent = "Show " + Math.min(AT_ONCE, order.length - shown) + " more of " + (order.length - shown).toLocaleString("en");
  }

  // What a filter says: a test of each unit, or what is wrong with it.
  function understand(text) {
    var tests = [], wrong = "";
    text.toLowerCase().split(/\s+/).filter(Boolean).forEach(function (part) {
      var match = /^([a-z]+)(<=|>=|<|>|=|≤|≥)(-?[\d.]+)(%?)$/.exec(part);
      if (!match) {
        tests.push(function (unit) { return lower[unit].some(function (label) { return label.indexOf(part) >= 0; }); });
        return;
      }
      var column = columns.find(function (found) { return found.name === match[1]; });
      var bound = +match[3] / (match[4] ? 100 : 1);
      if (!column || isNaN(bound)) {
        wrong = wrong || (column ? match[3] + " is no number." : "There is no measure " + match[1] + ": take one of " +
          columns.map(function (found) { return found.name; }).join(", ") + ".");
        return;
      }
      tests.push(function (unit) {
        var value = column.values[unit];
        if (value === null) return false;
        return { "<": value < bound, ">": value > bound, "<=": value <= bound, "≤": value <= bound,
          ">=": value >= bound, "≥": value >= bound, "=": value === bound }[match[2]];
      });
    });
    return { wrong: wrong, test: function (unit) { return tests.every(function (one) { return one(unit); }); } };
  }

  function apply() {
    return load().then(function () {
      var asked = understand(filter.value), column = columns.find(function (found) { return found.name === sort.name; });
      order = [];
      if (!asked.wrong) for (var unit = 0; unit < total; unit++) if (asked.test(unit)) order.push(unit);
      // What has no value comes last, whichever way.
      if (column) order.sort(function (a, b) {
        var x = column.values[a], y = column.values[b];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return (x < y ? -1 : x > y ? 1 : 0) * (sort.up ? 1 : -1) || a - b;
      });
      else if (!sort.up) order.reverse();
      heads.forEach(function (head) {
        if (head.dataset.column === sort.name) head.setAttribute("aria-sort", sort.up ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
      count.textContent = asked.wrong || (filter.value.trim() ? order.length.toLocaleString("en") + " of " + total.toLocaleString("en") : "");
      if (leaves) leaves.hidden = true;
      show(0);
    });
  }

  function remember() {
    var asked = new URLSearchParams();
    if (filter.value.trim()) asked.set("filter", filter.value.trim());
    if (sort.name !== "unit" || !sort.up) asked.set("sort", (sort.up ? "" : "-") + sort.name);
    history.replaceState(null, "", location.pathname + (String(asked) ? "?" + asked : ""));
  }

  heads.forEach(function (head) {
    var name = head.dataset.column;
    if (!name) return;
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent.trim();
    head.replaceChildren(button);
    button.addEventListener("click", function () {
      // The largest first, but for the number of the unit.
      sort = { name: name, up: sort.name === name && head.hasAttribute("aria-sort") ? !sort.up : name === "unit" };
      apply().then(remember);
    });
  });
  var timer;
  filter.addEventListener("input", function () {
    clearTimeout(timer);
    timer = setTimeout(function () { apply().then(remember); }, 100);
  });
  filter.form.addEventListener("submit", function (event) { event.preventDefault(); });
  more.addEventListener("click", function () {
    var next = shown;
    show(shown);
    body.rows[next].querySelector("a").focus();
  });

  var asked = new URLSearchParams(location.search), wanted = asked.get("sort") || "";
  if (wanted) sort = { name: wanted.replace(/^-/, ""), up: wanted[0] !== "-" };
  filter.value = asked.get("filter") || "";
  if (wanted || filter.value) apply();
})();
