// What a query asks for, and the behaviours that it finds in the index of search-index.js.
"use strict";

{
  const { search } = Atlas;
  const SHARDS = 4; // looked through at once for the beginning of a word
  const EXACT = 10; // an exact word counts so many times what begins with it does
  // Above any sum of shares: all words activate, a phrase, the whole query is a token.
  const ALL = 1e5;
  const PHRASE = 2e5;
  const NAMED = 3e5;
  const LONGEST_PATTERN = 100;
  const MOST_REPEATS = 3;
  const MOST_OPTIONAL = 4;
  const LONGEST_MATCHED = 64;
  const SLICE = 12; // milliseconds
  const FAR = 99; // words from the key token, of what does not show the query

  // A hit is a behaviour that is found: {number, score, share, term, shown, apart, …}.
  const hit = (number, score = 0, share = 0, term = null) => ({ number, score, share, term, shown: false });

  const UNIT = /^l?\s*(\d{1,9})\s*[./:\s]?\s*n\s*(\d{1,9})(?:\s*#?b(\d{1,9}))?$/i;
  const PAIR = /^l?\s*(\d{1,9})\s*[./:\s]\s*(\d{1,9})(?:\s*#b?(\d{1,9}))?$/i;

  // L2/N17, 2.17, l2n17, 2/17, each with #b2 for a behaviour: where it is, or null.
  const unit = (query) => {
    const match = UNIT.exec(query) ?? PAIR.exec(query);
    if (!match) return null;
    const [layer, number, behaviour] = match.slice(1).map((digits) => Number(digits ?? 0));
    const place = search.placeOf(layer, number);
    if (place < 0 || behaviour > search.count(place)) return null;
    const page = `L${layer}/N${number}.html${behaviour ? `#b${behaviour}` : ""}`;
    return { name: Atlas.unitName(layer, number), behaviour, place, page };
  };

  // The output neurons whose token the query is, case and surrounding space aside; they are of one layer.
  const ofToken = (query) => {
    const { tokens = [], layers } = Atlas.directory;
    const reading = (text) => text.toLowerCase().trim() || text;
    const wanted = reading(query.replace(/^[“"](.+)[”"]$/u, "$1").replaceAll("␣", " "));
    const units = tokens.map((_, number) => number);
    return units
      .filter((number) => reading(tokens[number].replace(/^“(.*)”$/su, "$1").replaceAll("␣", " ")) === wanted)
      .map((number) => ({
        name: tokens[number],
        behaviour: 0,
        place: search.placeOf(layers[0][0], number),
        page: `L${layers[0][0]}/N${number}.html`,
      }));
  };

  // The words and quoted parts of a query; of the last word that is not quoted, the beginning may stand for it.
  const parse = (query) => {
    const parts = Array.from(query.matchAll(/"([^"]*[^"\s][^"]*)"|(\S+)/g), ([, quoted, bare]) => {
      const text = (quoted ?? bare).trim();
      const words = search.pieces(text).map(({ word }) => word);
      return { text, key: search.key(text), words, quoted: quoted !== undefined, begins: false };
    });
    const last = parts.at(-1);
    if (last) last.begins = !last.quoted;
    return parts;
  };

  // The expression between slashes: {regex} or {error}, a sentence; null where the query is none.
  const expression = (query) => {
    const match = /^\/(.+)\/([dgimsuvy]{0,2})$/.exec(query);
    if (!match) return null;
    const [, source, flags] = match;
    if (flags && flags !== "i") return { error: "After the second slash only the flag i is known, to ignore case." };
    if (source.length > LONGEST_PATTERN) {
      return { error: `An expression may have ${LONGEST_PATTERN} characters, not ${source.length}.` };
    }
    try {
      const regex = new RegExp(source, `${flags}u`);
      const error = impatience(source);
      return error ? { error } : { regex };
    } catch (error) {
      const reason = error.message.replace(/^Invalid regular expression:\s*\/.*\/[a-z]*:\s*/s, "");
      return { error: `Not a regular expression: ${reason}.` };
    }
  };

  // An expression can take longer than anyone waits, by repeating what repeats or by repeating much in a row.
  const impatience = (source) => {
    const bare = source.replace(/\\[\s\S]/g, "x").replace(/\[[^\]]*\]/g, "x");
    const groups = []; // of each open group, whether it holds a choice or a repeat
    let repeats = 0;
    let optional = 0;
    const markGroup = () => {
      if (groups.length) groups[groups.length - 1] = true;
    };
    for (let i = 0; i < bare.length; i++) {
      const next = bare[i + 1] ?? "";
      switch (bare[i]) {
        case "(":
          groups.push(false);
          if (next === "?") i++;
          break;
        case ")":
          if (!groups.pop()) break;
          if (/[*+{]/.test(next)) {
            return "A repeated group may not contain a choice or a repeat: matching could take for ever.";
          }
          markGroup();
          break;
        case "|":
          markGroup();
          break;
        case "?":
          optional++;
          markGroup();
          break;
        case "*":
        case "+":
        case "{":
          repeats++;
          markGroup();
          if (next === "?") i++;
          break;
      }
    }
    if (repeats <= MOST_REPEATS && optional <= MOST_OPTIONAL) return null;
    return (
      `An expression may have ${MOST_REPEATS} repeats (* + {}) and ${MOST_OPTIONAL} question marks: ` +
      "more could take for ever."
    );
  };

  const isWithin = (value, [least, most]) => (least === null || value >= least) && (most === null || value <= most);

  // Which units pass the filters, 1 or 0 for each: null where all do. Ranges are [least, most], null for none.
  const passing = async (filters) => {
    const columns = ["effective", "density"].filter((name) => filters[name]);
    if (!filters.layers && !filters.behaviours && !columns.length) return null;
    const measures = columns.length ? await search.measures() : null;
    const passes = new Uint8Array(search.units()).fill(1);
    let first = 0;
    for (const [layer, units] of Atlas.directory.layers) {
      if (filters.layers && !filters.layers.includes(layer)) passes.fill(0, first, first + units);
      first += units;
    }
    if (filters.behaviours) {
      passes.forEach((_, place) => {
        if (!isWithin(search.count(place), filters.behaviours)) passes[place] = 0;
      });
    }
    for (const name of columns) {
      const [values, codes] = measures[name];
      const fits = values.map((value) => value !== null && isWithin(value, filters[name]));
      search.numbers(codes).forEach((code, place) => {
        if (!fits[code]) passes[place] = 0;
      });
    }
    return passes;
  };

  const union = (lists) => {
    if (lists.length <= 1) return lists[0] ?? new Int32Array(0);
    const all = new Int32Array(lists.reduce((sum, list) => sum + list.length, 0));
    let at = 0;
    for (const list of lists) {
      all.set(list, at);
      at += list.length;
    }
    return all.sort();
  };

  // Of rising spots those that have their `step`-th follower among rising others, within one text.
  const followed = (spots, others, step) => {
    const found = new Int32Array(spots.length);
    let count = 0;
    let at = 0;
    for (const spot of spots) {
      const wanted = spot + step;
      if ((spot % search.OFFSETS) + step >= search.OFFSETS) continue;
      while (at < others.length && others[at] < wanted) at++;
      if (others[at] === wanted) found[count++] = spot;
    }
    return found.subarray(0, count);
  };

  // Where words follow each other in shown texts, by the first of them; `lastRows` are those that can hold the last.
  const phraseSpots = (words, lastRows) => {
    let found = null;
    words.forEach((word, i) => {
      const rows = i === words.length - 1 && lastRows ? lastRows : [search.rowOf(word)];
      const spots = union(rows.filter(Boolean).map(search.spots));
      found = found === null ? spots : followed(found, spots, i);
    });
    return found ?? new Int32Array(0);
  };

  // Adds the behaviours that activate on a row's word.
  const addAnswers = (hits, row, factor) => {
    const { behaviours, shares } = search.answers(row);
    behaviours.forEach((number, i) => {
      const share = shares[i];
      const score = Math.max(1, share) * factor;
      const known = hits.get(number);
      if (!known) hits.set(number, hit(number, score, share, row[0]));
      else if (known.score < score) Object.assign(known, { score, share, term: row[0] });
    });
  };

  // Adds those that show something, the nearest to the key token first.
  const addShown = (hits, spots, length) => {
    for (const spot of spots) {
      const number = Math.floor(spot / search.OFFSETS);
      const offset = (spot % search.OFFSETS) - search.MIDDLE;
      const apart = offset > 0 ? offset : Math.max(0, -offset - length + 1); // words between it and the key token's
      if (!hits.has(number)) hits.set(number, hit(number));
      const known = hits.get(number);
      known.apart = known.shown ? Math.min(known.apart, apart) : apart;
      known.shown = true;
    }
  };

  // Behaviours of a part of a query: those that activate on it, and those that contain it. Map of number to hit.
  const hitsOf = (part, shards) => {
    const hits = new Map();
    const exact = search.rowOf(part.key);
    if (exact) addAnswers(hits, exact, EXACT);
    for (const row of part.begins ? search.rowsBeginning(shards, part.key) : []) {
      if (row !== exact) addAnswers(hits, row, 1);
    }
    const last = part.words.at(-1);
    const lastRows = part.begins && last ? search.rowsBeginning(shards, last) : null;
    addShown(hits, phraseSpots(part.words, lastRows), part.words.length);
    return hits;
  };

  const answersAll = (found) => found.answersAll ?? found.share > 0;

  const inBoth = (hits, others) => {
    const found = new Map();
    for (const [number, one] of hits) {
      const other = others.get(number);
      if (!other) continue;
      const lead = one.share >= other.share ? one : other;
      found.set(number, {
        number,
        score: one.score + other.score,
        share: lead.share,
        term: lead.term,
        shown: one.shown && other.shown,
        apart: one.apart,
        answersAll: answersAll(one) && answersAll(other),
      });
    }
    return found;
  };

  // Words of which postings are left out, with how many there are.
  const cutWords = (parts) =>
    parts.flatMap((part) =>
      [...new Set([part.key, ...part.words])]
        .map(search.rowOf)
        .filter((row) => row?.length > 5)
        .map((row) => ({ word: row[0], answering: row[5], showing: row[6] })),
    );

  // Several plain words: those that show them in a row come first, and before these what the whole query names.
  const rankPhrases = (hits, parts, shards, whole) => {
    const words = parts.flatMap((part) => part.words);
    const together = new Map();
    addShown(together, phraseSpots(words, search.rowsBeginning(shards, words.at(-1))), words.length);
    for (const [number, { apart }] of together) {
      const known = hits.get(number);
      if (known) Object.assign(known, { phrase: true, score: known.score + PHRASE, apart });
    }
    for (const found of hits.values()) if (!found.phrase && found.answersAll) found.score += ALL;
    const row = whole && search.rowOf(whole);
    if (!row) return;
    const { behaviours, shares } = search.answers(row);
    behaviours.forEach((number, i) => {
      hits.set(number, { ...hit(number, NAMED + shares[i], shares[i], row[0]), phrase: true });
    });
  };

  // Behaviours found by words. `reach` is how many shards of a beginning are looked through.
  const byWords = async (parts, reach) => {
    const last = parts.at(-1);
    const plain = parts.length > 1 && parts.every((part) => !part.quoted);
    const whole = plain && Atlas.directory.spaced ? search.key(parts.map((part) => part.text).join(" ")) : null;
    const words = parts.flatMap((part) => [part.key, ...part.words]);
    if (whole) words.push(whole);
    const beginnings = last.begins ? [last.key] : [];
    if (last.begins && last.words.length && last.words.at(-1) !== last.key) beginnings.push(last.words.at(-1));
    const range = beginnings.flatMap(search.shardsOf);
    const near = range.slice(0, reach);
    await search.loadShards([...words.map(search.shardOf), ...near]);
    const hits = parts.map((part) => hitsOf(part, part.begins ? near : [])).reduce(inBoth);
    if (plain) rankPhrases(hits, parts, near, whole);
    const more = range.length > reach ? Atlas.directory.shards[range[reach]] : null;
    return { hits, more, cut: cutWords(parts) };
  };

  // Runs `step` over a list in slices, so that a page never freezes; false from `goesOn` ends it for good.
  const inSlices = (list, step, goesOn) =>
    new Promise((resolve, reject) => {
      let at = 0;
      const slice = () => {
        if (!goesOn()) return;
        const until = performance.now() + SLICE;
        try {
          for (; at < list.length && performance.now() < until; at++) step(list[at], at);
        } catch (error) {
          reject(error);
          return;
        }
        if (at < list.length) setTimeout(slice);
        else resolve();
      };
      slice();
    });

  // Behaviours whose tokens or label match an expression.
  const byExpression = async (regex, layers, reach, goesOn) => {
    const hits = new Map();
    const matches = (text) => regex.test(text.slice(0, LONGEST_MATCHED));
    const { words, counts } = await search.vocabulary();
    const matched = [];
    const match = (word, place) => {
      if (matches(word)) matched.push(place);
    };
    await inSlices(words, match, goesOn);
    // The shards with the most behaviours first; there may be more than anyone wants to load.
    const gain = new Map();
    for (const place of matched) {
      const shard = search.shardOf(words[place]);
      gain.set(shard, (gain.get(shard) ?? 0) + counts[place]);
    }
    const shards = [...gain.keys()].sort((a, b) => gain.get(b) - gain.get(a) || a - b);
    const near = new Set(shards.slice(0, reach));
    await search.loadShards(near);
    const addWord = (place) => {
      const word = words[place];
      const row = near.has(search.shardOf(word)) && search.rowOf(word);
      if (!row) return;
      const { behaviours, shares } = search.answers(row);
      behaviours.forEach((number, i) => {
        const share = shares[i];
        if (share > (hits.get(number)?.share ?? 0)) hits.set(number, hit(number, share * EXACT, share, word));
      });
    };
    await inSlices(matched, addWord, goesOn);
    for (const layer of layers) {
      const firstUnit = search.placeOf(layer, 0);
      const addLabels = (labels, i) => {
        labels.forEach((label, place) => {
          if (!matches(label)) return;
          const number = search.start(firstUnit + i) + place;
          if (!hits.has(number)) hits.set(number, hit(number, 1));
          hits.get(number).labelled = true;
        });
      };
      await inSlices(await search.labels(layer), addLabels, goesOn);
    }
    return { hits, more: null, shardsLeft: shards.length > reach ? shards.length - reach : null, cut: [] };
  };

  const everything = () => {
    const hits = new Map();
    for (let number = 0; number < Atlas.directory.behaviours; number++) hits.set(number, hit(number));
    return { hits, more: null, cut: [] };
  };

  const inOrder = (a, b) => b.score - a.score || (a.apart ?? FAR) - (b.apart ?? FAR) || a.number - b.number;

  // Finds what a query with filters asks for: {hits: best first, parts, unit, error, more, …}.
  // `goesOn` says whether the answer is still wanted; what is not is never given.
  const find = async (query, filters, reach, goesOn) => {
    query = query.trim();
    await search.open();
    const named = query ? [unit(query), ...ofToken(query)].filter(Boolean) : [];
    const asked = { query, parts: [], units: named, expression: expression(query), hits: [] };
    if (asked.expression?.error) return { ...asked, error: asked.expression.error };
    if (!asked.expression) asked.parts = parse(query);
    const passes = await passing(filters);
    asked.filtered = passes !== null;
    if (!query && !passes) return asked;
    const layers = filters.layers ?? Atlas.directory.layers.map(([layer]) => layer);
    let result;
    if (!query) result = everything();
    else if (asked.expression) result = await byExpression(asked.expression.regex, layers, reach * 2, goesOn);
    else result = await byWords(asked.parts, reach);
    const hits = [...result.hits.values()]
      .filter(({ number }) => !passes || passes[search.behaviour(number).place])
      .sort(inOrder);
    return { ...asked, ...result, hits };
  };

  Object.assign(search, { find, unit, SHARDS });
}
