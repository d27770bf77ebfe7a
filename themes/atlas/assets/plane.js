// The plane of the map: where each behaviour is, what it is called, and which are near a place or inside a line.
"use strict";
(function () {
  var CELLS = 128, BITS = 65534;
  var labels = {}, texts = {}; // of layers, of blocks of behaviours: they come when asked for

  window.atlasLabels = function (layer, found) { labels[layer] = found; };
  window.atlasTexts = function (block, found) { texts[block] = found; };

  // Numbers of 16 bits from base64, the least byte first.
  function unpack(text) {
    var bytes = Uint8Array.from(atob(text), function (byte) { return byte.charCodeAt(0); });
    var view = new DataView(bytes.buffer), found = new Uint16Array(bytes.length / 2);
    for (var i = 0; i < found.length; i++) found[i] = view.getUint16(2 * i, true);
    return found;
  }

  // Of the data in map/points.js. Behaviours are numbers from zero, places are in a square of width 1, NaN for none.
  window.atlasPlane = function (data) {
    var places = unpack(data.places), layers = data.layers, total = places.length / 2;
    var X = new Float32Array(total), Y = new Float32Array(total);
    var unitOf = new Int32Array(total), layerOf = new Uint16Array(total), effective = new Float32Array(total);
    var shown = new Uint8Array(layers.length).fill(1); // which layers are there to be seen and found
    var starts = [], place = []; // of each unit: its first behaviour; its layer's place and its number in the layer
    var cellStart = new Int32Array(CELLS * CELLS + 1), cellItems; // where a cell's behaviours begin; all that have a place

    function read() {
      var counts = unpack(data.counts), many = unpack(data.effective), n = 0;
      layers.forEach(function (layer, at) {
        for (var unit = 0; unit < layer[1]; unit++) {
          var row = place.length;
          starts.push(n);
          place.push([at, unit]);
          for (var end = n + counts[row]; n < end; n++) {
            unitOf[n] = row; layerOf[n] = at; effective[n] = many[row] / 100;
            X[n] = places[2 * n] > BITS ? NaN : places[2 * n] / BITS;
            Y[n] = places[2 * n + 1] > BITS ? NaN : places[2 * n + 1] / BITS;
          }
        }
      });
      starts.push(n);
    }

    // ---- Behaviours by number

    function behaviour(n) { return n - starts[unitOf[n]] + 1; }
    function siblings(n) { return starts[unitOf[n] + 1] - starts[unitOf[n]]; }
    function name(n) { var at = place[unitOf[n]]; return "L" + layers[at[0]][0] + "/N" + at[1]; }
    function page(n) { return name(n) + ".html#b" + behaviour(n); }

    // `L3/N512.b2` is a behaviour; `L3/N512` all of a unit's.
    function named(text) {
      var match = /^L(\d+)\/N(\d+)(?:[.#]b(\d+))?$/.exec(text), found = [];
      var row = match ? place.findIndex(function (at) { return layers[at[0]][0] === +match[1] && at[1] === +match[2]; }) : -1;
      for (var n = starts[row]; row >= 0 && n < starts[row + 1]; n++) if (!match[3] || behaviour(n) === +match[3]) found.push(n);
      return { numbers: found, one: !!match && !!match[3] };
    }

    function label(n) {
      var at = place[unitOf[n]], found = labels[layers[at[0]][0]];
      return found ? atlasVisible((found[at[1]] || [])[behaviour(n) - 1] || "") : "";
    }
    function labelled() { return Object.keys(labels).length >= layers.length; }
    // The labels of some behaviours, or of all.
    function loadLabels(numbers) {
      var wanted = new Set(numbers ? numbers.map(function (n) { return layerOf[n]; }) : layers.keys());
      return Promise.all(Array.from(wanted, function (at) { return atlasLoad("search/l" + layers[at][0] + ".js"); }));
    }
    function having(part) {
      var found = [];
      for (var n = 0; n < total; n++) if (label(n).toLowerCase().indexOf(part) >= 0) found.push(n);
      return found;
    }

    // Label, what stands before the key word of an example, the word, and what stands after it.
    function text(n) { return (texts[Math.floor(n / data.block)] || [])[n % data.block]; }
    function loadText(n) { return atlasLoad("search/x" + Math.floor(n / data.block) + ".js"); }

    // ---- Finding what is where

    function sortIntoCells() {
      var cell = new Int32Array(total);
      for (var n = 0; n < total; n++) {
        cell[n] = X[n] === X[n] ? Math.min(CELLS - 1, Y[n] * CELLS | 0) * CELLS + Math.min(CELLS - 1, X[n] * CELLS | 0) : -1;
        if (cell[n] >= 0) cellStart[cell[n] + 1]++;
      }
      for (var c = 0; c < CELLS * CELLS; c++) cellStart[c + 1] += cellStart[c];
      cellItems = new Int32Array(cellStart[CELLS * CELLS]);
      var next = cellStart.slice();
      for (n = 0; n < total; n++) if (cell[n] >= 0) cellItems[next[cell[n]]++] = n;
    }
    function within(x0, y0, x1, y1, each) {
      function bound(value) { return Math.min(CELLS - 1, Math.max(0, value * CELLS | 0)); }
      for (var row = bound(y0); row <= bound(y1); row++) for (var column = bound(x0); column <= bound(x1); column++) {
        var c = row * CELLS + column;
        for (var i = cellStart[c]; i < cellStart[c + 1]; i++) if (shown[layerOf[cellItems[i]]]) each(cellItems[i]);
      }
    }
    // −1 where none is in reach.
    function nearest(x, y, reach, lit) {
      var best = -1, least = reach * reach;
      within(x - reach, y - reach, x + reach, y + reach, function (n) {
        // Lit ones are meant before others.
        var far = ((X[n] - x) * (X[n] - x) + (Y[n] - y) * (Y[n] - y)) * (lit && !lit[n] ? 9 : 1);
        if (far < least) { least = far; best = n; }
      });
      return best;
    }
    function inside(polygon) {
      var xs = polygon.map(function (point) { return point[0]; }), ys = polygon.map(function (point) { return point[1]; }), found = [];
      within(Math.min.apply(null, xs), Math.min.apply(null, ys), Math.max.apply(null, xs), Math.max.apply(null, ys), function (n) {
        for (var i = 0, j = xs.length - 1, odd = false; i < xs.length; j = i++) {
          if (ys[i] > Y[n] !== ys[j] > Y[n] && X[n] < (xs[j] - xs[i]) * (Y[n] - ys[i]) / (ys[j] - ys[i]) + xs[i]) odd = !odd;
        }
        if (odd) found.push(n);
      });
      return found;
    }
    // The box around some: its left, top, right and bottom; the left beyond the right where none of them has a place.
    function around(numbers) {
      var left = 1, top = 1, right = 0, bottom = 0;
      numbers.forEach(function (n) {
        if (X[n] !== X[n]) return;
        left = Math.min(left, X[n]); top = Math.min(top, Y[n]); right = Math.max(right, X[n]); bottom = Math.max(bottom, Y[n]);
      });
      return [left, top, right, bottom];
    }

    read();
    sortIntoCells();
    return {
      total: total, layers: layers, words: data.words, X: X, Y: Y, unitOf: unitOf, layerOf: layerOf, effective: effective, shown: shown,
      behaviour: behaviour, siblings: siblings, name: name, page: page, named: named,
      label: label, labelled: labelled, loadLabels: loadLabels, having: having, text: text, loadText: loadText,
      nearest: nearest, inside: inside, around: around, box: around(cellItems)
    };
  };
})();
