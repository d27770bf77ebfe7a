// The search index: what its files hold, loaded by script tags when first asked for, so that a folder will do.
// atlas_builder/site/search.py and postings.py write it; words are those of atlas_builder/site/words.py.
"use strict";
(function () {
  var root = document.body.dataset.root, loading = {};
  var shards = [], blocks = [], labels = {}, units = null, words = null;
  var firsts = [], starts = null; // of each layer its first unit's place; of each unit its first behaviour's number

  window.atlasShard = function (number, rows) { shards[number] = new Map(rows.map(function (row) { return [row[0], row]; })); };
  window.atlasTexts = function (number, rows) { blocks[number] = rows; };
  window.atlasLabels = function (layer, found) { labels[layer] = found; };
  window.atlasUnits = function (columns) { units = columns; };
  window.atlasWords = function (found, counts) { words = { words: found, counts: numbers(counts) }; };

  function load(name) {
    loading[name] = loading[name] || new Promise(function (resolve, reject) {
      var script = document.createElement("script");
      script.src = root + "search/" + name + ".js";
      script.onload = function () { script.remove(); resolve(); };
      script.onerror = function () {
        script.remove();
        delete loading[name];
        reject(new Error("A part of the index, search/" + name + ".js, could not be loaded. Try again."));
      };
      document.head.appendChild(script);
    });
    return loading[name];
  }

  function loadAll(names) { return Promise.all(names.map(load)); }

  // The index itself, once: which numbers belong to which unit.
  var ready = null;
  function open() {
    ready = ready || (window.atlas ? Promise.resolve() : load("index")).then(function () {
      var place = 0, number = 0;
      starts = [];
      atlas.layers.forEach(function (layer) {
        firsts.push(place);
        numbers(layer[2]).forEach(function (behaviours) { starts.push(number); number += behaviours; });
        place += layer[1];
      });
      starts.push(number);
    }).catch(function (error) { ready = null; throw error; });
    return ready;
  }

  // How many entries of a rising list are at most `value`.
  function upTo(list, value) {
    var low = 0, high = list.length;
    while (low < high) {
      var middle = (low + high) >> 1;
      if (list[middle] <= value) low = middle + 1; else high = middle;
    }
    return low;
  }

  // A unit's place in the atlas, by layer and number; −1 where there is none.
  function placeOf(layer, unit) {
    var which = atlas.layers.findIndex(function (entry) { return entry[0] === layer; });
    return which < 0 || unit >= atlas.layers[which][1] ? -1 : firsts[which] + unit;
  }

  function unitAt(place) {
    var which = upTo(firsts, place) - 1;
    return { layer: atlas.layers[which][0], unit: place - firsts[which] };
  }

  // Where a behaviour lives: its unit's place, layer and number, and its own number there, from one.
  function behaviour(number) {
    var place = upTo(starts, number) - 1, found = unitAt(place);
    return { place: place, layer: found.layer, unit: found.unit, behaviour: number - starts[place] + 1 };
  }

  // Numbers written as digits of base 64, five bits each, the least first, the sixth bit set where more follow.
  var digits = new Uint8Array(128);
  Array.from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_").forEach(function (digit, value) { digits[digit.charCodeAt(0)] = value; });

  function numbers(text) {
    var found = new Int32Array(text.length), count = 0, value = 0, shift = 0;
    for (var i = 0; i < text.length; i++) {
      var digit = digits[text.charCodeAt(i)];
      value += (digit & 31) << shift;
      shift += 5;
      if (digit < 32) { found[count++] = value; value = shift = 0; }
    }
    return found.subarray(0, count);
  }

  function summed(steps) {
    for (var i = 1; i < steps.length; i++) steps[i] += steps[i - 1];
    return steps;
  }

  var OFFSETS = 64, MIDDLE = 31;

  // Behaviours that answer to a word of a shard, and how much of each it is, in thousandths.
  function answers(row) {
    return row.answers = row.answers || { who: summed(numbers(row[1])), shares: numbers(row[2]) };
  }

  // Where a word stands in shown texts: 64 × behaviour + offset from the key token's word + 31, rising.
  function spots(row) {
    if (!row.spots) {
      row.spots = summed(numbers(row[3]));
      for (var i = 0; i < row.spots.length; i++) row.spots[i] = row.spots[i] * OFFSETS + digits[row[4].charCodeAt(i)];
    }
    return row.spots;
  }

  // Python sorts strings by code point, JavaScript by UTF-16 unit; the index is in Python's order.
  function before(a, b) {
    var x = Array.from(a), y = Array.from(b);
    for (var i = 0; i < Math.min(x.length, y.length); i++) {
      if (x[i] !== y[i]) return x[i].codePointAt(0) < y[i].codePointAt(0);
    }
    return x.length < y.length;
  }

  // The shard that holds a word, if any does.
  function shardOf(word) {
    var low = 0, high = atlas.shards.length;
    while (low < high) {
      var middle = (low + high) >> 1;
      if (before(word, atlas.shards[middle])) high = middle; else low = middle + 1;
    }
    return Math.max(0, low - 1);
  }

  // The shards that hold what begins with a word, that of the word itself first.
  function shardsOf(word) {
    var found = [shardOf(word)];
    for (var next = found[0] + 1; next < atlas.shards.length && atlas.shards[next].startsWith(word); next++) found.push(next);
    return found;
  }

  function row(word) { var shard = shards[shardOf(word)]; return shard && shard.get(word); }

  function rowsFrom(numbers, word) {
    var found = [];
    numbers.forEach(function (number) {
      if (shards[number]) shards[number].forEach(function (entry, key) { if (key.startsWith(word)) found.push(entry); });
    });
    return found;
  }

  function loadShards(numbers) { return loadAll(Array.from(new Set(numbers), function (number) { return "s" + number; })); }

  // The same as words.py: `key` of a token, `same` of a word, `pieces` of a text.
  function key(token) { return same(token.replace(/^[\s\u001c-\u001f\u0085]+|[\s\u001c-\u001f\u0085]+$/g, "")) || "␣"; }

  function same(word) { return word.toLowerCase().normalize("NFC"); }

  var SOLO = ["Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"].map(function (name) { return "\\p{Script=" + name + "}"; }).join("");
  var LETTERS = "\\p{L}\\p{M}\\p{N}_";
  var PIECE = new RegExp("[" + SOLO + "]\\p{M}*|(?:(?![" + SOLO + "])[" + LETTERS + "])+|([^\\s\\x1c-\\x1f\\x85\\ufeff" + LETTERS + "])\\1*", "gu");

  function pieces(text) {
    var found = [], match;
    PIECE.lastIndex = 0;
    while ((match = PIECE.exec(text))) found.push({ start: match.index, end: PIECE.lastIndex, word: same(match[0]) });
    return found;
  }

  // Label and example of a behaviour, once they are there: {label, before, key, after}.
  function text(number) {
    var block = Math.floor(number / atlas.block);
    return load("x" + block).then(function () {
      var found = blocks[block][number - block * atlas.block];
      return { label: found[0], before: found[1], key: found[2], after: found[3] };
    });
  }

  window.atlasSearch = {
    open: open, load: load, text: text, key: key, same: same, pieces: pieces,
    behaviour: behaviour, placeOf: placeOf, unitAt: unitAt, answers: answers, spots: spots, row: row, rowsFrom: rowsFrom,
    shardOf: shardOf, shardsOf: shardsOf, loadShards: loadShards, OFFSETS: OFFSETS, MIDDLE: MIDDLE,
    start: function (place) { return starts[place]; },
    count: function (place) { return starts[place + 1] - starts[place]; },
    units: function () { return starts.length - 1; },
    columns: function () { return load("units").then(function () { return units; }); },
    words: function () { return load("words").then(function () { return words; }); },
    labels: function (layer) { return load("l" + layer).then(function () { return labels[layer]; }); },
    numbers: numbers
  };
})();
