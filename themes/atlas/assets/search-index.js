// The search index: what its files hold, loaded by script tags when first asked for, so that a folder will do.
// The builder writes it (site/search/index.py, postings.py); words are those of site/search/normalise.py.
"use strict";

{
  const root = document.body.dataset.root;
  const loading = new Map();
  const shards = []; // by number: a Map of each word's row
  const blocks = []; // by number: label and example of each behaviour
  const labels = new Map(); // by layer
  let measures = null;
  let vocabulary = null;
  const firstUnits = []; // of each layer its first unit's place in the atlas
  const starts = []; // of each unit its first behaviour's number

  Atlas.shard = (number, rows) => {
    shards[number] = new Map(rows.map((row) => [row[0], row]));
  };
  Atlas.texts = (number, rows) => {
    blocks[number] = rows;
  };
  Atlas.labels = (layer, found) => labels.set(layer, found);
  Atlas.units = (columns) => {
    measures = columns;
  };
  Atlas.words = (words, counts) => {
    vocabulary = { words, counts: numbers(counts) };
  };

  // Unlike Atlas.load, says what failed and tries again when asked again.
  const load = (name) => {
    if (!loading.has(name)) {
      const loaded = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `${root}search/${name}.js`;
        script.onload = () => {
          script.remove();
          resolve();
        };
        script.onerror = () => {
          script.remove();
          loading.delete(name);
          reject(new Error(`A part of the index, search/${name}.js, could not be loaded. Try again.`));
        };
        document.head.append(script);
      });
      loading.set(name, loaded);
    }
    return loading.get(name);
  };

  // The index itself, once: which numbers belong to which unit.
  let opened = null;
  const readDirectory = async () => {
    if (!Atlas.directory) await load("index");
    let unit = 0;
    let behaviour = 0;
    for (const [, units, counts] of Atlas.directory.layers) {
      firstUnits.push(unit);
      for (const count of numbers(counts)) {
        starts.push(behaviour);
        behaviour += count;
      }
      unit += units;
    }
    starts.push(behaviour);
  };
  const open = () => {
    opened ??= readDirectory().catch((error) => {
      opened = null;
      throw error;
    });
    return opened;
  };

  // How many entries of a rising list are at most `value`.
  const countUpTo = (list, value) => {
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  // A unit's place in the atlas, by layer and number; −1 where there is none.
  const placeOf = (layer, unit) => {
    const { layers } = Atlas.directory;
    const index = layers.findIndex(([name]) => name === layer);
    return index < 0 || unit >= layers[index][1] ? -1 : firstUnits[index] + unit;
  };

  // Where a behaviour lives: its unit's place, layer and number, and its own number there, from one.
  const behaviour = (number) => {
    const place = countUpTo(starts, number) - 1;
    const index = countUpTo(firstUnits, place) - 1;
    const [layer] = Atlas.directory.layers[index];
    return { place, layer, unit: place - firstUnits[index], behaviour: number - starts[place] + 1 };
  };

  // Numbers written as digits of base 64, five bits each, the least first, the sixth bit set where more follow.
  const digitValues = new Uint8Array(128);
  Array.from(Atlas.constants.digits, (digit, value) => (digitValues[digit.charCodeAt(0)] = value));

  const numbers = (text) => {
    const found = new Int32Array(text.length);
    let count = 0;
    let value = 0;
    let shift = 0;
    for (let i = 0; i < text.length; i++) {
      const digit = digitValues[text.charCodeAt(i)];
      value += (digit & 31) << shift;
      shift += 5;
      if (digit >= 32) continue;
      found[count++] = value;
      value = shift = 0;
    }
    return found.subarray(0, count);
  };

  const summed = (steps) => {
    for (let i = 1; i < steps.length; i++) steps[i] += steps[i - 1];
    return steps;
  };

  // Behaviours that activate on a word of a shard, and how much of each it is, in thousandths.
  const answers = (row) => (row.answers ??= { behaviours: summed(numbers(row[1])), shares: numbers(row[2]) });

  // Where a word stands in shown texts: OFFSETS × behaviour + offset from the key token's word + MIDDLE, rising.
  const { offsets: OFFSETS, middleOffset: MIDDLE } = Atlas.constants;
  const spots = (row) => {
    row.spots ??= summed(numbers(row[3])).map((number, i) => number * OFFSETS + digitValues[row[4].charCodeAt(i)]);
    return row.spots;
  };

  // Python sorts strings by code point, JavaScript by UTF-16 unit; the index is in Python's order.
  const isBefore = (a, b) => {
    const left = Array.from(a);
    const right = Array.from(b);
    const differs = left.findIndex((character, i) => character !== right[i]);
    if (differs < 0) return left.length < right.length;
    return differs < right.length && left[differs].codePointAt(0) < right[differs].codePointAt(0);
  };

  // The shard that holds a word, if any does.
  const shardOf = (word) => {
    const firsts = Atlas.directory.shards;
    let low = 0;
    let high = firsts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(word, firsts[middle])) high = middle;
      else low = middle + 1;
    }
    return Math.max(0, low - 1);
  };

  // The shards that hold what begins with a word, that of the word itself first.
  const shardsOf = (word) => {
    const found = [shardOf(word)];
    const firsts = Atlas.directory.shards;
    for (let next = found[0] + 1; next < firsts.length && firsts[next].startsWith(word); next++) found.push(next);
    return found;
  };

  const rowOf = (word) => shards[shardOf(word)]?.get(word);

  const rowsBeginning = (shardNumbers, word) => {
    const found = [];
    for (const number of shardNumbers) {
      for (const [key, row] of shards[number] ?? []) if (key.startsWith(word)) found.push(row);
    }
    return found;
  };

  const loadShards = (shardNumbers) => Promise.all(Array.from(new Set(shardNumbers), (number) => load(`s${number}`)));

  // As `search_key`, `same` and `pieces` of the builder, by its own expressions.
  const ends = new RegExp(Atlas.constants.wordEnds, "g");
  const piece = new RegExp(Atlas.constants.piece, "gu");
  const same = (word) => word.toLowerCase().normalize("NFC");
  const key = (token) => same(token.replace(ends, "")) || "␣";
  const pieces = (text) =>
    Array.from(text.matchAll(piece), ({ index, 0: word }) => ({
      start: index,
      end: index + word.length,
      word: same(word),
    }));

  // Label and example of a behaviour, once they are there.
  const text = async (number) => {
    const block = Math.floor(number / Atlas.directory.block);
    await load(`x${block}`);
    const [label, before, token, after, said] = blocks[block][number - block * Atlas.directory.block];
    return { label, before, key: token, after, said: said ?? [] };
  };

  Atlas.search = {
    OFFSETS,
    MIDDLE,
    open,
    text,
    key,
    same,
    pieces,
    behaviour,
    placeOf,
    answers,
    spots,
    rowOf,
    rowsBeginning,
    shardOf,
    shardsOf,
    loadShards,
    numbers,
    start: (place) => starts[place],
    count: (place) => starts[place + 1] - starts[place],
    units: () => starts.length - 1,
    measures: () => load("units").then(() => measures),
    vocabulary: () => load("words").then(() => vocabulary),
    labels: (layer) => load(`l${layer}`).then(() => labels.get(layer)),
  };
}
