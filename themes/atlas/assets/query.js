// What a query asks for, and the behaviours that it finds in the index of lookup.js.
"use strict";
(function () {
  var search = window.atlasSearch;
  var SHARDS = 4; // looked through at once for the beginning of a word
  var EXACT = 10; // an exact word counts so many times what begins with it does
  var ALL = 1e5, PHRASE = 2e5, NAMED = 3e5; // above any sum of shares: all words answer, a phrase, the whole query a token
  var LONGEST_PATTERN = 100, MOST_REPEATS = 3, MOST_OPTIONAL = 4, LONGEST_MATCHED = 64, SLICE = 12;

  // L2/N17, 2.17, l2n17, 2/17, each with #b2 for a behaviour: where it is, or null.
  function unit(query) {
    var match = /^l?\s*(\d{1,9})\s*[./:\s]?\s*n\s*(\d{1,9})(?:\s*#?b(\d{1,9}))?$/i.exec(query) ||
      /^l?\s*(\d{1,9})\s*[./:\s]\s*(\d{1,9})(?:\s*#b?(\d{1,9}))?$/i.exec(query);
    if (!match) return null;
    var place = search.placeOf(+match[1], +match[2]), behaviour = match[3] === undefined ? 0 : +match[3];
    if (place < 0 || behaviour > search.count(place)) return null;
    var name = "L" + +match[1] + "/N" + +match[2];
    return { name: name, behaviour: behaviour, place: place, page: name + ".html" + (behaviour ? "#b" + behaviour : "") };
  }

  // The words and quoted parts of a query; of the last word that is not quoted, the beginning may stand for it.
  function parse(query) {
    var parts = [], match, pattern = /"([^"]*[^"\s][^"]*)"|(\S+)/g;
    while ((match = pattern.exec(query))) {
      var quoted = match[1] !== undefined, text = (quoted ? match[1] : match[2]).trim();
      parts.push({ text: text, key: search.key(text), words: search.pieces(text).map(function (piece) { return piece.word; }), quoted: quoted, begins: false });
    }
    var last = parts[parts.length - 1];
    if (last && !last.quoted) last.begins = true;
    return parts;
  }

  // The expression between slashes: {regex} or {error}, a sentence; null where the query is none.
  function expression(query) {
    var match = /^\/(.+)\/([dgimsuvy]{0,2})$/.exec(query);
    if (!match) return null;
    var source = match[1];
    if (match[2] && match[2] !== "i") return { error: "After the second slash only i is known, for either case." };
    if (source.length > LONGEST_PATTERN) return { error: "An expression may have " + LONGEST_PATTERN + " characters, not " + source.length + "." };
    var regex;
    try { regex = new RegExp(source, match[2] + "u"); } catch (error) {
      return { error: "This is no regular expression: " + error.message.replace(/^Invalid regular expression:\s*\/.*\/[a-z]*:\s*/s, "") + "." };
    }
    return patience(source) || { regex: regex, source: source };
  }

  // An expression can take longer than anyone waits, by repeating what repeats or by repeating much in a row.
  function patience(source) {
    var bare = source.replace(/\\[\s\S]/g, "x").replace(/\[[^\]]*\]/g, "x");
    var groups = [], repeats = 0, optional = 0;
    for (var i = 0; i < bare.length; i++) {
      var sign = bare[i];
      if (sign === "(") { groups.push(false); if (bare[i + 1] === "?") i++; continue; }
      if (sign === "|" && groups.length) groups[groups.length - 1] = true;
      if (sign === "?") { optional++; if (groups.length) groups[groups.length - 1] = true; }
      if (sign === "*" || sign === "+" || sign === "{") { repeats++; if (groups.length) groups[groups.length - 1] = true; if (bare[i + 1] === "?") i++; }
      if (sign === ")") {
        var inner = groups.pop();
        if (inner && /[*+{]/.test(bare[i + 1] || "")) return { error: "A group that is repeated may not hold a choice or a repeat: it could take for ever." };
        if (inner && groups.length) groups[groups.length - 1] = true;
      }
    }
    if (repeats > MOST_REPEATS || optional > MOST_OPTIONAL) {
      return { error: "An expression may hold " + MOST_REPEATS + " repeats (* + {}) and " + MOST_OPTIONAL + " question marks: more could take for ever." };
    }
    return null;
  }

  // Which units pass the filters: null where all do. Ranges are [least, most], null for none.
  function passing(filters) {
    var columns = ["effective", "density"].filter(function (name) { return filters[name]; });
    if (!filters.layers && !filters.behaviours && !columns.length) return Promise.resolve(null);
    return (columns.length ? search.columns() : Promise.resolve(null)).then(function (found) {
      var passes = new Uint8Array(search.units()).fill(1), place = 0;
      atlas.layers.forEach(function (layer) {
        if (filters.layers && filters.layers.indexOf(layer[0]) < 0) passes.fill(0, place, place + layer[1]);
        place += layer[1];
      });
      if (filters.behaviours) for (place = 0; place < passes.length; place++) if (!within(search.count(place), filters.behaviours)) passes[place] = 0;
      columns.forEach(function (name) {
        var fits = found[name][0].map(function (value) { return value !== null && within(value, filters[name]); });
        search.numbers(found[name][1]).forEach(function (code, place) { if (!fits[code]) passes[place] = 0; });
      });
      return passes;
    });
  }

  function within(value, range) { return (range[0] === null || value >= range[0]) && (range[1] === null || value <= range[1]); }

  // Where words follow each other in shown texts, by the first of them; `lasts` are the rows that can hold the last word.
  function phrase(words, lasts) {
    var rows = words.map(function (word, i) { return i === words.length - 1 && lasts ? lasts : [search.row(word)]; });
    var found = null;
    for (var i = 0; i < rows.length; i++) {
      var spots = union(rows[i].filter(Boolean).map(search.spots));
      found = found === null ? spots : following(found, spots, i);
    }
    return found || new Int32Array(0);
  }

  function union(lists) {
    if (lists.length <= 1) return lists[0] || new Int32Array(0);
    var all = new Int32Array(lists.reduce(function (sum, list) { return sum + list.length; }, 0)), at = 0;
    lists.forEach(function (list) { all.set(list, at); at += list.length; });
    return all.sort();
  }

  // Of rising `a` what has its `step`-th follower in rising `b`, within one text.
  function following(a, b, step) {
    var found = new Int32Array(a.length), count = 0, j = 0;
    for (var i = 0; i < a.length; i++) {
      var wanted = a[i] + step;
      if (a[i] % search.OFFSETS + step >= search.OFFSETS) continue;
      while (j < b.length && b[j] < wanted) j++;
      if (b[j] === wanted) found[count++] = a[i];
    }
    return found.subarray(0, count);
  }

  // Behaviours of a part of a query: those that answer to it, and those that show it. Map of number to hit.
  function hitsOf(part, shards) {
    var hits = new Map(), exact = search.row(part.key);
    function answer(row, factor) {
      var found = search.answers(row);
      for (var i = 0; i < found.who.length; i++) {
        var share = found.shares[i], score = Math.max(1, share) * factor, hit = hits.get(found.who[i]);
        if (!hit) hits.set(found.who[i], { number: found.who[i], score: score, share: share, term: row[0], shown: false });
        else if (hit.score < score) { hit.score = score; hit.share = share; hit.term = row[0]; }
      }
    }
    var beginnings = part.begins ? search.rowsFrom(shards, part.key) : [];
    if (exact) answer(exact, EXACT);
    beginnings.forEach(function (row) { if (row !== exact) answer(row, 1); });
    var last = part.words[part.words.length - 1];
    show(hits, phrase(part.words, part.begins && last ? search.rowsFrom(shards, last) : null), part.words.length);
    return hits;
  }

  // Adds those that show something, the nearest to the key token first.
  function show(hits, spots, length) {
    for (var i = 0; i < spots.length; i++) {
      var number = Math.floor(spots[i] / search.OFFSETS), offset = spots[i] % search.OFFSETS - search.MIDDLE;
      var apart = offset > 0 ? offset : Math.max(0, -offset - length + 1); // words between it and the key token's
      var hit = hits.get(number);
      if (!hit) hits.set(number, hit = { number: number, score: 0, share: 0, term: null, shown: false });
      if (!hit.shown) { hit.shown = true; hit.apart = apart; } else hit.apart = Math.min(hit.apart, apart);
    }
  }

  function both(a, b) {
    var found = new Map();
    a.forEach(function (hit, number) {
      var other = b.get(number);
      if (!other) return;
      var lead = hit.share >= other.share ? hit : other;
      found.set(number, {
        number: number, score: hit.score + other.score, share: lead.share, term: lead.term,
        shown: hit.shown && other.shown, apart: hit.apart, answersAll: answersTo(hit) && answersTo(other)
      });
    });
    return found;
  }

  function answersTo(hit) { return hit.answersAll === undefined ? hit.share > 0 : hit.answersAll; }

  // Behaviours found by words. `reach` is how many shards of a beginning are looked through.
  function byWords(parts, reach) {
    var last = parts[parts.length - 1], range = [], words = [];
    var plain = parts.length > 1 && parts.every(function (part) { return !part.quoted; });
    var whole = plain && atlas.spaced ? search.key(parts.map(function (part) { return part.text; }).join(" ")) : null;
    parts.forEach(function (part) { words.push(part.key); words.push.apply(words, part.words); });
    if (whole) words.push(whole);
    if (last.begins) {
      range = search.shardsOf(last.key);
      if (last.words.length && last.words[last.words.length - 1] !== last.key) range = range.concat(search.shardsOf(last.words[last.words.length - 1]));
    }
    var near = range.slice(0, reach), more = range.length > reach ? atlas.shards[range[reach]] : null;
    return search.loadShards(words.map(search.shardOf).concat(near)).then(function () {
      var hits = parts.map(function (part) { return hitsOf(part, part.begins ? near : []); }).reduce(both);
      var result = { hits: hits, more: more, phrases: 0, answering: 0, showing: 0, cut: cut(parts) };
      if (plain) {
        var row = whole && search.row(whole), all = [];
        parts.forEach(function (part) { all.push.apply(all, part.words); });
        var together = new Map();
        show(together, phrase(all, search.rowsFrom(near, all[all.length - 1])), all.length);
        together.forEach(function (hit, number) {
          var known = hits.get(number);
          if (known) { known.phrase = true; known.score += PHRASE; known.apart = hit.apart; }
        });
        hits.forEach(function (hit) { if (!hit.phrase && hit.answersAll) hit.score += ALL; });
        if (row) {
          var found = search.answers(row);
          found.who.forEach(function (number, i) {
            hits.set(number, { number: number, score: NAMED + found.shares[i], share: found.shares[i], term: row[0], shown: false, phrase: true });
          });
        }
      }
      return result;
    });
  }

  // Words of which postings are left out, with how many there are.
  function cut(parts) {
    var found = [];
    parts.forEach(function (part) {
      new Set([part.key].concat(part.words)).forEach(function (word) {
        var row = search.row(word);
        if (row && row.length > 5) found.push({ word: word, answering: row[5], showing: row[6] });
      });
    });
    return found;
  }

  // Runs `step` over a list in slices, so that a page never freezes; false from `goesOn` ends it.
  function inSlices(list, step, goesOn) {
    return new Promise(function (resolve, reject) {
      var at = 0;
      (function slice() {
        if (!goesOn()) return;
        var until = performance.now() + SLICE;
        try { while (at < list.length && performance.now() < until) step(list[at], at++); } catch (error) { reject(error); return; }
        if (at < list.length) setTimeout(slice); else resolve();
      })();
    });
  }

  // Behaviours whose tokens or label match an expression.
  function byExpression(regex, layers, reach, goesOn) {
    var hits = new Map(), more = null;
    return search.words().then(function (all) {
      var matched = [];
      return inSlices(all.words, function (word, place) { if (regex.test(word.slice(0, LONGEST_MATCHED))) matched.push(place); }, goesOn).then(function () {
        // The shards with the most behaviours first; there may be more than anyone wants to load.
        var gain = new Map();
        matched.forEach(function (place) { var shard = search.shardOf(all.words[place]); gain.set(shard, (gain.get(shard) || 0) + all.counts[place]); });
        var shards = Array.from(gain.keys()).sort(function (a, b) { return gain.get(b) - gain.get(a) || a - b; });
        var near = new Set(shards.slice(0, reach));
        if (shards.length > reach) more = shards.length - reach;
        return search.loadShards(Array.from(near)).then(function () {
          return inSlices(matched, function (place) {
            var word = all.words[place], row = near.has(search.shardOf(word)) && search.row(word);
            if (!row) return;
            var found = search.answers(row);
            for (var i = 0; i < found.who.length; i++) {
              var hit = hits.get(found.who[i]);
              if (found.shares[i] && (!hit || hit.share < found.shares[i])) hits.set(found.who[i], { number: found.who[i], score: found.shares[i] * EXACT, share: found.shares[i], term: word, shown: false });
            }
          }, goesOn);
        });
      });
    }).then(function () {
      return layers.reduce(function (before, layer) {
        return before.then(function () { return search.labels(layer); }).then(function (units) {
          var first = search.placeOf(layer, 0);
          return inSlices(units, function (labels, unit) {
            labels.forEach(function (label, place) {
              if (!regex.test(label.slice(0, LONGEST_MATCHED))) return;
              var number = search.start(first + unit) + place, hit = hits.get(number);
              if (hit) hit.labelled = true;
              else hits.set(number, { number: number, score: 1, share: 0, term: null, shown: false, labelled: true });
            });
          }, goesOn);
        });
      }, Promise.resolve());
    }).then(function () { return { hits: hits, more: null, shardsLeft: more, cut: [] }; });
  }

  // Every behaviour of the units that pass.
  function everything() {
    var hits = new Map();
    for (var number = 0; number < atlas.behaviours; number++) hits.set(number, { number: number, score: 0, share: 0, term: null, shown: false });
    return Promise.resolve({ hits: hits, more: null, cut: [] });
  }

  // Finds what a query with filters asks for: {hits: best first, parts, unit, error, more, …}.
  // `goesOn` says whether the answer is still wanted; what is not is never given.
  function find(query, filters, reach, goesOn) {
    query = query.trim();
    return search.open().then(function () {
      var asked = { query: query, parts: [], unit: unit(query), expression: expression(query), hits: [] };
      if (asked.expression && asked.expression.error) { asked.error = asked.expression.error; return asked; }
      if (!asked.expression) asked.parts = parse(query);
      var layers = filters.layers || atlas.layers.map(function (layer) { return layer[0]; });
      return passing(filters).then(function (passes) {
        asked.filtered = passes !== null;
        if (!query && !passes) return asked;
        var found = !query ? everything() : asked.expression ? byExpression(asked.expression.regex, layers, reach * 2, goesOn) : byWords(asked.parts, reach);
        return found.then(function (result) {
          var hits = [];
          result.hits.forEach(function (hit) { if (!passes || passes[search.behaviour(hit.number).place]) hits.push(hit); });
          hits.sort(function (a, b) { return b.score - a.score || (a.apart === undefined ? 99 : a.apart) - (b.apart === undefined ? 99 : b.apart) || a.number - b.number; });
          return Object.assign(asked, result, { hits: hits });
        });
      });
    });
  }

  Object.assign(search, { find: find, unit: unit, parse: parse, expression: expression, SHARDS: SHARDS });
})();
