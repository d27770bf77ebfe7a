// The search page: a query and filters, kept in the address, and what they find.
"use strict";
(function () {
  var search = window.atlasSearch;
  var SHOWN = 20, PAUSE = 120; // results at once; milliseconds without a key before a search
  var form = document.getElementById("search"), input = document.getElementById("q"), status = document.getElementById("status");
  var list = document.getElementById("results"), more = document.getElementById("more"), further = document.getElementById("further");
  var help = document.getElementById("help"), panel = document.getElementById("filters"), title = document.title;
  var RANGES = ["behaviours", "effective", "density"], UNIT = { density: 100 }; // what a filter shows of one
  var latest = 0, result = null, shown = 0, reach = search.SHARDS;

  function element(name, text, kind) {
    var made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Text as nodes, with what is spelt out kept quiet.
  function visible(text) {
    var made = document.createDocumentFragment(), last = 0;
    text.replace(atlasVisible.HIDDEN, function (hidden, at) {
      made.append(text.slice(last, at), element("u", atlasVisible.spelt(hidden)));
      last = at + hidden.length;
      return "";
    });
    made.append(text.slice(last));
    return made;
  }

  function percent(share) {
    var whole = Math.round(share * 100);
    return share > 0 && share <= .005 ? "<1%" : share >= .995 && share < 1 ? ">99%" : whole + "%";
  }

  function count(number, one, many) { return number.toLocaleString("en") + " " + (number === 1 ? one : many); }

  // --- The query and its filters, in the controls and in the address.

  function asked() {
    var filters = { layers: null };
    var layers = Array.from(panel.querySelectorAll("[data-layer]:checked"), function (box) { return +box.dataset.layer; });
    if (layers.length) filters.layers = layers;
    RANGES.forEach(function (name) {
      var ends = ["least", "most"].map(function (end) {
        var value = panel.querySelector("[data-" + end + "=" + name + "]").value;
        return value === "" || isNaN(+value) ? null : +(+value / (UNIT[name] || 1)).toPrecision(6);
      });
      filters[name] = ends[0] === null && ends[1] === null ? null : ends;
    });
    return { query: input.value.trim(), filters: filters };
  }

  function addressOf(wanted) {
    var parameters = new URLSearchParams();
    if (wanted.query) parameters.set("q", wanted.query);
    if (wanted.filters.layers) parameters.set("layer", wanted.filters.layers.join(","));
    RANGES.forEach(function (name) {
      var range = wanted.filters[name];
      if (range) parameters.set(name, range.map(function (end) { return end === null ? "" : digits(end); }).join("-"));
    });
    var text = parameters.toString().replace(/%2C/g, ",");
    return location.pathname + (text ? "?" + text : "");
  }

  // A number without an exponent, whose minus would part a range.
  function digits(number) { return number.toFixed(12).replace(/\.?0+$/, ""); }

  function takeUp(address) {
    var parameters = new URLSearchParams(address);
    var layers = new Set(parameters.getAll("layer").join(",").split(","));
    input.value = parameters.get("q") || "";
    panel.querySelectorAll("[data-layer]").forEach(function (box) { box.checked = layers.has(box.dataset.layer); });
    RANGES.forEach(function (name) {
      var match = /^([\d.]*)-([\d.]*)$/.exec(parameters.get(name) || "") || ["", "", ""];
      ["least", "most"].forEach(function (end, i) {
        var value = match[i + 1] === "" ? NaN : +match[i + 1] * (UNIT[name] || 1);
        panel.querySelector("[data-" + end + "=" + name + "]").value = isNaN(value) ? "" : +value.toPrecision(6);
      });
    });
    if (filtering(asked().filters)) panel.open = true;
  }

  function filtering(filters) { return Object.keys(filters).some(function (name) { return filters[name] !== null; }); }

  // --- Results.

  function item(hit) {
    var where = search.behaviour(hit.number), name = "L" + where.layer + "/N" + where.unit;
    var made = element("li"), link = element("a"), label = element("span", "", "label"), meta = element("p", undefined, "meta");
    link.href = name + ".html#b" + where.behaviour;
    link.append(label, " ", element("span", name, "id"));
    if (hit.share) meta.append(element("b", percent(hit.share / 1000)), " of it is ", element("span", "", "term"));
    if (hit.share) meta.lastChild.append(visible(hit.term));
    else meta.append(hit.labelled || hit.term !== null ? "In its label" : hit.shown ? "In its example" : "Passes the filters");
    var others = search.count(where.place);
    if (others > 1) meta.append(", behaviour " + where.behaviour + " of " + others);
    made.append(link, meta, element("p", undefined, "example"));
    made.dataset.number = hit.number;
    return made;
  }

  // Fills in label and example, with the words of the query marked in it.
  function fill(made) {
    var number = +made.dataset.number;
    search.text(number).then(function (text) {
      made.querySelector(".label").replaceChildren(visible(text.label));
      made.querySelector(".example").replaceChildren(example(text, result.parts));
      made.classList.add("there");
    }, function (error) { status.textContent = error.message; });
  }

  function example(text, parts) {
    var whole = text.before + text.key + text.after, marks = new Uint8Array(whole.length);
    var found = search.pieces(whole), made = document.createDocumentFragment();
    parts.forEach(function (part) {
      for (var i = 0; i + part.words.length <= found.length && part.words.length; i++) {
        var fits = part.words.every(function (word, j) {
          var there = found[i + j].word;
          return there === word || (part.begins && j === part.words.length - 1 && there.startsWith(word));
        });
        if (fits) for (var at = found[i].start; at < found[i + part.words.length - 1].end; at++) marks[at] = 1;
      }
    });
    function runs(from, to, into) {
      for (var start = from, end; start < to; start = end) {
        end = start + 1;
        while (end < to && marks[end] === marks[start]) end++;
        if (!marks[start]) { into.append(visible(whole.slice(start, end))); continue; }
        var hit = element("span", undefined, "hit");
        hit.append(visible(whole.slice(start, end)));
        into.append(hit);
      }
    }
    var mark = element("mark"), key = text.before.length, after = key + text.key.length;
    runs(0, key, made);
    if (/[^ ]/.test(text.key)) runs(key, after, mark); else mark.append("␣".repeat(Math.max(1, text.key.length)));
    made.append(mark);
    runs(after, whole.length, made);
    return made;
  }

  // Examples come from as many files as there are results; those in sight are loaded.
  var seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) return;
      seen.unobserve(entry.target);
      fill(entry.target);
    });
  }, { rootMargin: "100px" });

  function extend(to) {
    var made = result.hits.slice(shown, to).map(item);
    list.append.apply(list, made);
    made.forEach(function (entry) { seen.observe(entry); });
    shown = Math.min(to, result.hits.length);
    more.hidden = shown >= result.hits.length;
    more.textContent = "Show " + count(Math.min(SHOWN, result.hits.length - shown), "more", "more");
    return made;
  }

  // The unit that a query names, before what its words find.
  function named(unit) {
    var made = element("li", undefined, "named"), link = element("a");
    link.href = unit.page;
    link.append(element("span", unit.behaviour ? "Behaviour " + unit.behaviour + " of this unit" : "The unit itself", "label"), " ", element("span", unit.name, "id"));
    made.append(link, element("p", count(search.count(unit.place), "behaviour", "behaviours"), "meta"));
    return made;
  }

  function summary(found) {
    if (found.error) return found.error;
    if (!found.query && !found.filtered) return "";
    var within = found.filtered ? " within the filters" : "", quoted = "“" + atlasVisible(found.query) + "”";
    var hits = found.hits, answering = 0, phrases = 0;
    hits.forEach(function (hit) { answering += hit.share > 0; phrases += hit.phrase === true; });
    if (!found.query) return count(hits.length, "behaviour passes", "behaviours pass") + " the filters, in the order of the atlas.";
    if (!hits.length) return "Nothing answers to " + quoted + (within || " here") + ".";
    var others = hits.length - answering, said;
    if (found.expression) said = count(answering, "behaviour answers", "behaviours answer") + " to words that match, " + count(others, "more has", "more have") + " a label that does";
    else if (found.parts.length > 1) said = phrases ? count(phrases, "behaviour shows", "behaviours show") + " " + quoted + " in a row, " + count(hits.length - phrases, "more has", "more have") + " each of the words" : count(hits.length, "behaviour answers to or shows", "behaviours answer to or show") + " each word of " + quoted;
    else if (!answering) said = "No behaviour answers to " + quoted + "; " + count(others, "shows", "show") + " it";
    else said = count(answering, "behaviour answers", "behaviours answer") + " to " + quoted + (others ? ", " + count(others, "more shows", "more show") + " it" : "");
    said += within + ".";
    found.cut.forEach(function (word) {
      said += " “" + atlasVisible(word.word) + "” is frequent: " + count(word.answering, "behaviour answers", "behaviours answer") + " to it and " + word.showing.toLocaleString("en") + " show it, of which not all are looked through.";
    });
    return said;
  }

  function show(found, keep) {
    result = found;
    seen.disconnect();
    list.replaceChildren();
    shown = 0;
    status.textContent = summary(found);
    if (found.unit) list.append(named(found.unit));
    extend(keep || SHOWN);
    further.hidden = !found.more && !found.shardsLeft;
    further.textContent = found.more ? "Look through more words, from “" + atlasVisible(found.more) + "” on" : "Look through the words of " + count(found.shardsLeft || 0, "more file", "more files");
  }

  function run(keep) {
    var turn = ++latest, wanted = asked();
    document.title = wanted.query ? atlasVisible(wanted.query) + ", " + title : title;
    help.open = !wanted.query && !filtering(wanted.filters);
    document.getElementById("clear").hidden = !filtering(wanted.filters);
    list.setAttribute("aria-busy", "true");
    return search.find(wanted.query, wanted.filters, reach, function () { return turn === latest; }).then(function (found) {
      if (turn === latest) show(found, keep);
    }, function (error) {
      if (turn === latest) status.textContent = error.message;
    }).then(function () { if (turn === latest) list.removeAttribute("aria-busy"); });
  }

  // --- Keys, and the way back.

  // What was asked for with Enter keeps its place in the history; what is only typed is replaced by what is typed next.
  function remember(entered) {
    var address = addressOf(asked()), here = location.pathname + location.search, state = history.state || {};
    if (address !== here && state.asked) history.pushState({ asked: entered }, "", address);
    else history.replaceState({ asked: entered || (state.asked && address === here) }, "", address);
  }

  var timer;
  function changed() {
    clearTimeout(timer);
    timer = setTimeout(function () {
      reach = search.SHARDS;
      remember(false);
      run();
    }, PAUSE);
  }
  input.addEventListener("input", changed);
  panel.addEventListener("input", changed);
  document.getElementById("clear").addEventListener("click", function () {
    panel.querySelectorAll("input").forEach(function (box) { box.checked = false; if (box.type !== "checkbox") box.value = ""; });
    changed();
    input.focus();
  });

  form.addEventListener("submit", function (event) {
    event.preventDefault();
    clearTimeout(timer);
    remember(true);
    search.open().then(function () {
      var unit = search.unit(input.value.trim());
      if (unit) location.href = unit.page; else { reach = search.SHARDS; run(); }
    });
  });
  addEventListener("popstate", function (event) {
    takeUp(location.search);
    run(event.state && event.state.shown);
  });
  // What was shown is shown again when a reader comes back from a result.
  addEventListener("pagehide", function () {
    history.replaceState(Object.assign({}, history.state, { shown: Math.max(shown, SHOWN), reach: reach, top: scrollY }), "");
  });

  more.addEventListener("click", function () {
    var made = extend(shown + SHOWN);
    if (made[0]) made[0].querySelector("a").focus();
  });
  further.addEventListener("click", function () { reach += search.SHARDS; run(shown); });

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    var links = Array.from(list.querySelectorAll("a")), at = links.indexOf(document.activeElement);
    if (at < 0 && document.activeElement !== input) return;
    var next = at + (event.key === "ArrowDown" ? 1 : -1);
    if (event.key === "ArrowUp" && at < 0) return;
    event.preventDefault();
    var target = next < 0 ? input : links[next] || (more.hidden ? null : more);
    if (target) target.focus();
  });

  var back = history.state;
  takeUp(location.search);
  if (back && back.reach) reach = back.reach;
  search.open().then(function () {
    var unit = !back && search.unit(input.value.trim());
    if (unit && !filtering(asked().filters)) { location.replace(unit.page); return; }
    if (input.value) remember(true); else input.focus();
    return run(back && back.shown).then(function () { if (back && back.top) scrollTo(0, back.top); });
  }, function (error) { status.textContent = error.message; });
})();
