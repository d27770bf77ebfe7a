// Search without a server: shards of the index are loaded by script tags, so a folder will do.
"use strict";
(function () {
  var MOST = 60;
  var input = document.getElementById("q"), status = document.getElementById("status");
  var list = document.getElementById("results"), help = document.getElementById("help");
  var shards = {}, labels = {}, loading = {}, latest = 0;

  window.atlasShard = function (number, data) { shards[number] = new Map(data); };
  window.atlasLabels = function (layer, data) { labels[layer] = data; };

  function load(name) {
    loading[name] = loading[name] || new Promise(function (resolve) {
      var script = document.createElement("script");
      script.src = "search/" + name + ".js";
      script.onload = script.onerror = resolve;
      document.head.appendChild(script);
    });
    return loading[name];
  }

  // The same as `search_key` in atlas_builder/site/search.py.
  function key(word) {
    return word.replace(/^[\s\u001c-\u001f\u0085]+|[\s\u001c-\u001f\u0085]+$/g, "").toLowerCase() || "␣";
  }

  // What cannot be seen is spelt out, as on the pages.
  function visible(text) {
    return text.replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\uffff]/g,
      function (hidden) { return "U+" + hidden.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0"); });
  }

  // Python sorts strings by code point, JavaScript by UTF-16 unit; the index is in Python's order.
  function before(a, b) {
    var x = Array.from(a), y = Array.from(b);
    for (var i = 0; i < Math.min(x.length, y.length); i++) {
      if (x[i] !== y[i]) return x[i].codePointAt(0) < y[i].codePointAt(0);
    }
    return x.length < y.length;
  }

  // The shards that can hold the word or what begins with it.
  function shardsOf(word) {
    var found = [];
    atlas.shards.forEach(function (first, number) {
      var next = atlas.shards[number + 1];
      if ((next === undefined || before(word, next)) && (!before(word, first) || first.startsWith(word))) found.push(number);
    });
    return found;
  }

  // Every behaviour under a word or what begins with it; an exact word counts ten times.
  function lookUp(word) {
    var numbers = shardsOf(word);
    return Promise.all(numbers.map(function (number) { return load("s" + number); })).then(function () {
      var found = new Map();
      numbers.forEach(function (number) {
        (shards[number] || new Map()).forEach(function (entry, term) {
          if (!term.startsWith(word)) return;
          var factor = term === word ? 10 : 1;
          for (var i = 1; i < entry.length; i += 4) {
            var where = entry[i] + "." + entry[i + 1] + "." + entry[i + 2], score = entry[i + 3] * factor;
            if (!found.has(where) || found.get(where).score < score) {
              found.set(where, { layer: entry[i], unit: entry[i + 1], behaviour: entry[i + 2], score: score, weight: entry[i + 3], term: term });
            }
          }
        });
      });
      return found;
    });
  }

  function both(a, b) {
    var found = new Map();
    a.forEach(function (hit, where) {
      if (b.has(where)) found.set(where, Object.assign({}, hit, { score: hit.score + b.get(where).score }));
    });
    return found;
  }

  function unit(query) {
    var match = /^l?\s*(\d+)\s*[./:\s]\s*n?\s*(\d+)$/i.exec(query) || /^l(\d+)n(\d+)$/i.exec(query);
    if (!match) return null;
    var layer = atlas.layers.find(function (entry) { return entry[0] === +match[1]; });
    return layer && +match[2] < layer[1] ? "L" + +match[1] + "/N" + +match[2] + ".html" : null;
  }

  function element(name, text, kind) {
    var made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function show(query, hits) {
    var best = Array.from(hits.values()).sort(function (a, b) {
      return b.score - a.score || a.layer - b.layer || a.unit - b.unit || a.behaviour - b.behaviour;
    }).slice(0, MOST);
    var layers = new Set(best.map(function (hit) { return hit.layer; }));
    return Promise.all(Array.from(layers, function (layer) { return load("l" + layer); })).then(function () {
      list.replaceChildren.apply(list, best.map(function (hit) {
        var item = element("li"), link = element("a", "L" + hit.layer + "/N" + hit.unit);
        var text = element("span", undefined, "label");
        link.href = "L" + hit.layer + "/N" + hit.unit + ".html#b" + hit.behaviour;
        text.append(visible(((labels[hit.layer] || [])[hit.unit] || [])[hit.behaviour - 1] || ""));
        text.append(" ", element("span", hit.term === query ? "" : "by " + visible(hit.term), "why"));
        item.append(link, text, element("span", Math.round(hit.weight / 10) + "%", "share"));
        return item;
      }));
      status.textContent = hits.size === 0 ? "Nothing answers to “" + query + "” here." :
        hits.size + (hits.size === 1 ? " behaviour answers" : " behaviours answer") + " to “" + query + "”" +
        (hits.size > MOST ? ", of which these " + MOST + " do most." : ".");
    });
  }

  function search(query, jump) {
    var turn = ++latest;
    query = query.trim();
    help.hidden = query !== "";
    if (!query) { list.replaceChildren(); status.textContent = ""; return; }
    var place = unit(query);
    if (place && jump) { location.replace(place); return; }
    var words = query.split(/\s+/).map(key);
    var whole = words.length > 1 ? lookUp(key(query)) : Promise.resolve(new Map());
    Promise.all([whole].concat(words.map(lookUp))).then(function (found) {
      if (turn !== latest) return;
      var hits = found.slice(1).reduce(both);
      found[0].forEach(function (hit, where) { hits.set(where, hit); });
      return show(words.join(" "), hits).then(function () {
        if (!place) return;
        var item = element("li"), link = element("a", place.replace(".html", ""));
        link.href = place;
        item.append(link, element("span", "the unit itself", "label"));
        list.prepend(item);
      });
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    var asked = new URLSearchParams(location.search).get("q") || "";
    input.value = asked;
    if (!asked) input.focus();
    search(asked, true);
    var timer;
    input.addEventListener("input", function () {
      clearTimeout(timer);
      timer = setTimeout(function () {
        history.replaceState(null, "", "search.html" + (input.value ? "?q=" + encodeURIComponent(input.value) : ""));
        search(input.value, false);
      }, 120);
    });
  });
})();
