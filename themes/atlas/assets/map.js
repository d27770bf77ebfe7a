// The map of all behaviours: drawn dot by dot on a canvas, from data in a script tag.
"use strict";
(function () {
  var LISTED = 200, CELLS = 128, NEAR = 14, DEEPEST = 400, BITS = 65534;
  var EDGE = 24; // pixels drawn beyond the canvas, for dots that are half in view
  function $(id) { return document.getElementById(id); }
  var chart = $("chart"), canvas = $("points"), over = $("over"), tip = $("tip");
  var noun = chart && chart.dataset.noun, calm = matchMedia("(prefers-reduced-motion: reduce)");
  var total, layers, place, starts, unitOf, layerOf, effective, words, block; // of the atlas
  var X, Y, order, cellStart, cellItems; // of the plane, its width 1
  var view = { x: .5, y: .5, s: 1, w: 1, h: 1 }, fitted = 1, box; // middle, pixels to the map's width, size of the canvas
  var shownLayer, colour, ground, lit = null, by = "layer", hover = -1, held = -1, chosen = null, rope = null;
  var look = {}, written = [];
  var labels = {}, rows = {};

  // Numbers of 16 bits from base64, the least byte first.
  function unpack(text) {
    var bytes = Uint8Array.from(atob(text), function (byte) { return byte.charCodeAt(0); });
    var view = new DataView(bytes.buffer), found = new Uint16Array(bytes.length / 2);
    for (var i = 0; i < found.length; i++) found[i] = view.getUint16(2 * i, true);
    return found;
  }

  window.atlasMap = function (data) {
    if (!chart) return;
    var counts = unpack(data.counts), places = unpack(data.places), many = unpack(data.effective);
    layers = data.layers; words = data.words; block = data.block; total = places.length / 2;
    X = new Float32Array(total); Y = new Float32Array(total);
    unitOf = new Int32Array(total); layerOf = new Uint16Array(total); effective = new Float32Array(total);
    shownLayer = new Uint8Array(layers.length).fill(1);
    colour = new Uint32Array(total);
    starts = []; place = []; // of each unit: its first behaviour; its layer's place and its number in the layer
    var n = 0;
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
    begin();
  };

  window.atlasLabels = function (layer, found) { labels[layer] = found; };
  window.atlasTexts = function (number, found) { rows[number] = found; };

  // ---- Behaviours by number

  function behaviour(n) { return n - starts[unitOf[n]] + 1; }
  function name(n) { var at = place[unitOf[n]]; return "L" + layers[at[0]][0] + "/N" + at[1]; }
  function page(n) { return name(n) + ".html#b" + behaviour(n); }
  function label(n) {
    var at = place[unitOf[n]], found = labels[layers[at[0]][0]];
    return found ? atlasVisible((found[at[1]] || [])[behaviour(n) - 1] || "") : "";
  }
  function withLabels(numbers) {
    var wanted = new Set(numbers.map(function (n) { return layers[layerOf[n]][0]; }));
    return Promise.all(Array.from(wanted, function (layer) { return atlasLoad("search/l" + layer + ".js"); }));
  }

  // ---- Drawing

  function rgb(name) {
    var probe = over.getContext("2d");
    probe.fillStyle = getComputedStyle(chart).getPropertyValue(name).trim();
    var value = parseInt(probe.fillStyle.slice(1), 16);
    return [value >> 16, value >> 8 & 255, value & 255];
  }
  function mixed(stops, share) {
    var at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), from = Math.min(Math.floor(at), stops.length - 2);
    return stops[from].map(function (part, i) { return Math.round(part + (stops[from + 1][i] - part) * (at - from)); });
  }
  function packed(color) { return (color[2] << 16 | color[1] << 8 | color[0]) >>> 0; }
  function css(color) { return "rgb(" + color.join(" ") + ")"; }

  // Each dot's colour, from the style sheet: again whenever the theme, the question or the search changes.
  function recolour() {
    var m = [0, 1, 2, 3, 4, 5, 6].map(function (i) { return rgb("--m" + i); });
    var p = [0, 1, 2, 3].map(function (i) { return rgb("--p" + i); });
    var paper = rgb("--card"), dim = packed(mixed([paper, rgb("--c0")], .32)), hit = packed(rgb("--c2"));
    var ofLayer = layers.map(function (_, at) { return mixed(m, layers.length > 1 ? at / (layers.length - 1) : 0); });
    var most = Math.max(most98(), 1.5);
    var style = getComputedStyle(chart);
    ["ink", "sans", "mono"].forEach(function (name) { look[name] = style.getPropertyValue("--" + name); });
    look.paper = css(paper);
    ground = (packed(paper) | 0xff000000) >>> 0;
    for (var n = 0; n < total; n++) {
      if (lit) colour[n] = lit[n] ? hit : dim;
      else if (by === "layer") colour[n] = packed(ofLayer[layerOf[n]]);
      else colour[n] = packed(mixed(p, Math.log(Math.max(effective[n], 1)) / Math.log(most)));
    }
    $("ramp").hidden = by === "layer";
    $("most").textContent = most.toFixed(1) + "+";
    document.querySelectorAll("#layers i").forEach(function (dot, at) {
      dot.style.setProperty("--dot", css(by === "layer" ? ofLayer[at] : rgb("--c0")));
    });
    draw();
  }
  var ninetyEighth;
  function most98() {
    if (ninetyEighth === undefined) ninetyEighth = Float32Array.from(effective).sort()[Math.floor(total * .98)];
    return ninetyEighth;
  }

  // A round dot as places around its middle in a canvas so wide, and how much each is covered, of 256.
  function stamp(radius, width, opacity) {
    var reach = Math.ceil(radius), at = [], cover = [];
    for (var dy = -reach; dy <= reach; dy++) for (var dx = -reach; dx <= reach; dx++) {
      var share = Math.min(1, Math.max(0, radius + .5 - Math.hypot(dx, dy)));
      if (share > .02) { at.push(dy * width + dx); cover.push(Math.round(256 * share * opacity)); }
    }
    return { reach: reach + 1, at: Int32Array.from(at), cover: Int32Array.from(cover) };
  }

  var image, pixels;
  function paint() {
    var pen = canvas.getContext("2d", { alpha: false }), w = canvas.width + 2 * EDGE, h = canvas.height + 2 * EDGE;
    if (!image || image.width !== w || image.height !== h) {
      image = pen.createImageData(w, h);
      pixels = new Uint32Array(image.data.buffer);
    }
    pixels.fill(ground);
    var ratio = canvas.width / view.w, scale = view.s * ratio, zoom = view.s / fitted;
    var left = w / 2 - view.x * scale, top = h / 2 - view.y * scale;
    // Dots of few behaviours are larger, and all grow more slowly than the map.
    var radius = Math.min(7, Math.max(.9, 4.4 - .75 * Math.log10(total + 1)) * Math.pow(zoom, .38)) * ratio;
    var opacity = Math.min(.92, .62 + .1 * Math.log2(Math.max(zoom, 1)) + (total < 20000 ? .14 : 0));
    pass(stamp(radius, w, opacity), 0);
    if (lit) pass(stamp(Math.max(radius * 1.35, 1.6 * ratio), w, .95), 1);
    pen.putImageData(image, -EDGE, -EDGE);

    function pass(dot, wanted) {
      var at = dot.at, cover = dot.cover, reach = dot.reach, parts = at.length;
      for (var i = 0; i < total; i++) {
        var n = order[i];
        if (!shownLayer[layerOf[n]] || lit && lit[n] !== wanted) continue;
        var x = Math.round(X[n] * scale + left), y = Math.round(Y[n] * scale + top);
        if (!(x >= reach && x < w - reach && y >= reach && y < h - reach)) continue;
        var middle = y * w + x, c = colour[n], rb = c & 0xff00ff, g = c & 0xff00;
        for (var k = 0; k < parts; k++) {
          // Two channels at once: what spills over falls to the mask.
          var old = pixels[middle + at[k]], oldRb = old & 0xff00ff, oldG = old & 0xff00, a = cover[k];
          pixels[middle + at[k]] = 0xff000000 |
            oldRb + (Math.imul(rb - oldRb, a) >> 8) & 0xff00ff | oldG + (Math.imul(g - oldG, a) >> 8) & 0xff00;
        }
      }
    }
  }

  function at(n) { return [(X[n] - view.x) * view.s + view.w / 2, (Y[n] - view.y) * view.s + view.h / 2]; }

  function measured(pen, text) {
    var sign = !/[\p{L}\p{N}]/u.test(text);
    pen.font = sign ? "600 13px " + look.mono : "500 13px " + look.sans;
    return { text: text, sign: sign, font: pen.font, half: pen.measureText(text).width / 2 + 7 };
  }

  // What lies over the dots: words where there is room, the rope, rings.
  function write() {
    var pen = over.getContext("2d"), ratio = over.width / view.w, ink = look.ink, paper = look.paper;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, view.w, view.h);
    var deep = Math.log2(view.s / fitted) + 1.01, taken = [];
    pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
    pen.strokeStyle = paper; pen.fillStyle = ink;
    var room = Math.max(6, Math.round(view.w * view.h / 16000));
    for (var i = 0; i < words.length && words[i][2] <= deep && taken.length < room && !lit; i++) {
      var x = (words[i][0] - view.x) * view.s + view.w / 2, y = (words[i][1] - view.y) * view.s + view.h / 2 - 15; // above what they name
      var word = written[i] || (written[i] = measured(pen, atlasVisible(words[i][3]))), half = word.half;
      if (x < half || x > view.w - half || y < 12 || y > view.h - 12) continue;
      if (x + half > view.w - 60 && y < 220 && view.w > 560) continue; // the buttons are there
      if (taken.some(function (other) { return Math.abs(other[0] - x) < other[2] + half && Math.abs(other[1] - y) < 24; })) continue;
      taken.push([x, y, half]);
      // Signs such as a comma are lost among dots unless they have a ground of their own.
      pen.font = word.font;
      if (word.sign) {
        pen.globalAlpha = .9; pen.fillStyle = paper;
        pen.beginPath(); pen.arc(x - half + 10, y, 9, Math.PI / 2, -Math.PI / 2); pen.arc(x + half - 10, y, 9, -Math.PI / 2, Math.PI / 2); pen.fill();
      } else { pen.globalAlpha = .85; pen.lineWidth = 4; pen.strokeText(word.text, x, y); }
      pen.globalAlpha = 1; pen.fillStyle = ink; pen.fillText(word.text, x, y);
    }
    pen.globalAlpha = 1;
    if (chosen && !rope && chosen.length <= 1000) for (i = 0; i < chosen.length; i++) ring(chosen[i], 4.5, 1, .55);
    if (held >= 0) ring(held, 9, 2.5, 1);
    if (hover >= 0 && hover !== held) ring(hover, 7, 2, 1);
    if (rope) {
      pen.beginPath();
      rope.forEach(function (point) { pen.lineTo((point[0] - view.x) * view.s + view.w / 2, (point[1] - view.y) * view.s + view.h / 2); });
      pen.closePath();
      pen.globalAlpha = .1; pen.fillStyle = ink; pen.fill();
      pen.globalAlpha = 1; pen.strokeStyle = ink; pen.lineWidth = 1.5; pen.setLineDash([5, 4]); pen.stroke(); pen.setLineDash([]);
    }
    function ring(n, radius, width, alpha) {
      var spot = at(n);
      pen.globalAlpha = alpha; pen.beginPath(); pen.arc(spot[0], spot[1], radius, 0, 7);
      pen.strokeStyle = ink; pen.lineWidth = width; pen.stroke();
    }
  }

  var due = { dots: false, over: false };
  function draw() { due.dots = true; mark(); }
  function mark() {
    if (due.over) return;
    due.over = true;
    requestAnimationFrame(function () {
      due.over = false;
      if (due.dots) { due.dots = false; paint(); }
      write();
      point();
    });
  }

  // ---- Moving

  function resize() {
    var ratio = Math.min(window.devicePixelRatio || 1, 2), fits = view.s === fitted;
    view.w = over.clientWidth; view.h = over.clientHeight;
    [canvas, over].forEach(function (made) { made.width = Math.round(view.w * ratio); made.height = Math.round(view.h * ratio); });
    var home = framed(box);
    fitted = home.s;
    if (fits || !(view.s > 0)) Object.assign(view, home);
    draw();
  }
  function framed(around) {
    var margin = Math.min(40, view.w / 16);
    var s = Math.min((view.w - 2 * margin) / Math.max(around[2] - around[0], 1e-3), (view.h - 2 * margin) / Math.max(around[3] - around[1], 1e-3));
    return { x: (around[0] + around[2]) / 2, y: (around[1] + around[3]) / 2, s: s };
  }
  function hold(to) {
    to.s = Math.min(Math.max(to.s, fitted * .6), fitted * DEEPEST);
    to.x = Math.min(Math.max(to.x, box[0]), box[2]); to.y = Math.min(Math.max(to.y, box[1]), box[3]);
    return to;
  }
  function move(to) { Object.assign(view, hold(to)); draw(); }
  var flight = 0;
  function fly(to) {
    var from = { x: view.x, y: view.y, s: view.s }, begun = performance.now(), turn = ++flight;
    hold(to);
    if (calm.matches) return move(to);
    requestAnimationFrame(function step(now) {
      if (turn !== flight) return;
      var share = Math.min(1, Math.max(0, now - begun) / 260), eased = share * (2 - share);
      var s = from.s * Math.pow(to.s / from.s, eased), way = to.s === from.s ? eased : (1 / from.s - 1 / s) / (1 / from.s - 1 / to.s);
      move({ x: from.x + (to.x - from.x) * way, y: from.y + (to.y - from.y) * way, s: share === 1 ? to.s : s });
      if (share < 1) requestAnimationFrame(step);
    });
  }
  // The view when what is under a point of the canvas stays there.
  function zoomed(factor, x, y) {
    var s = hold({ x: .5, y: .5, s: view.s * factor }).s, part = 1 / view.s - 1 / s;
    return { x: view.x + (x - view.w / 2) * part, y: view.y + (y - view.h / 2) * part, s: s };
  }
  function whole() { fly(framed(box)); }

  // ---- Finding what is where

  function sortIntoCells() {
    cellStart = new Int32Array(CELLS * CELLS + 1);
    cellItems = new Int32Array(total);
    var cell = new Int32Array(total);
    for (var n = 0; n < total; n++) {
      cell[n] = X[n] === X[n] ? Math.min(CELLS - 1, Y[n] * CELLS | 0) * CELLS + Math.min(CELLS - 1, X[n] * CELLS | 0) : -1;
      if (cell[n] >= 0) cellStart[cell[n] + 1]++;
    }
    for (var c = 0; c < CELLS * CELLS; c++) cellStart[c + 1] += cellStart[c];
    var next = cellStart.slice();
    for (n = 0; n < total; n++) if (cell[n] >= 0) cellItems[next[cell[n]]++] = n;
  }
  function within(x0, y0, x1, y1, each) {
    function bound(value) { return Math.min(CELLS - 1, Math.max(0, value * CELLS | 0)); }
    for (var row = bound(y0); row <= bound(y1); row++) for (var column = bound(x0); column <= bound(x1); column++) {
      var c = row * CELLS + column;
      for (var i = cellStart[c]; i < cellStart[c + 1]; i++) if (shownLayer[layerOf[cellItems[i]]]) each(cellItems[i]);
    }
  }
  function nearest(px, py) {
    var x = view.x + (px - view.w / 2) / view.s, y = view.y + (py - view.h / 2) / view.s, reach = NEAR / view.s;
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
  function inView() {
    var x = view.w / 2 / view.s, y = view.h / 2 / view.s;
    return inside([[view.x - x, view.y - y], [view.x + x, view.y - y], [view.x + x, view.y + y], [view.x - x, view.y + y]]);
  }

  // ---- Saying what it is

  function element(kind, text) { var made = document.createElement(kind); made.textContent = text; return made; }
  function counted(count, what) { return count.toLocaleString("en") + " " + what + (count === 1 ? "" : "s"); }

  function point() {
    var n = hover >= 0 ? hover : held;
    tip.hidden = n < 0;
    if (n < 0) return;
    if (tip.dataset.of !== n + (text(n) ? " told" : "")) say(n);
    var spot = at(n), wide = tip.offsetWidth, high = tip.offsetHeight;
    var x = Math.min(Math.max(spot[0] - wide / 2, 8), view.w - wide - 8), y = spot[1] - high - 16;
    if (y < 8) y = spot[1] + 18;
    tip.style.transform = "translate(" + Math.round(x) + "px," + Math.round(y) + "px)";
  }
  // Label, what stands before the key word of an example, the word, and what stands after it.
  function text(n) { return (rows[Math.floor(n / block)] || [])[n % block]; }
  function say(n) {
    var found = text(n), of = starts[unitOf[n] + 1] - starts[unitOf[n]];
    tip.dataset.of = n + (found ? " told" : "");
    tip.replaceChildren(element("b", found ? atlasVisible(found[0]) : "…"), element("span", name(n) + ", behaviour " + behaviour(n) + " of " + of));
    if (found) {
      var example = element("q", "");
      example.append(atlasVisible(found[1]), element("mark", atlasVisible(found[2])), atlasVisible(found[3]));
      tip.append(example);
    } else atlasLoad("search/x" + Math.floor(n / block) + ".js").then(mark);
  }

  function list(numbers) {
    chosen = numbers && Int32Array.from(numbers).sort();
    $("chosen").hidden = !chosen;
    $("inside").replaceChildren();
    mark();
    if (!chosen) return;
    var units = new Set(Array.from(chosen, function (n) { return unitOf[n]; }));
    $("chosen-title").textContent = chosen.length ? counted(chosen.length, "behaviour") + " of " + counted(units.size, noun) : "No behaviour in there";
    var first = Array.from(chosen.subarray(0, LISTED)), now = chosen;
    withLabels(first).then(function () {
      if (chosen !== now) return;
      $("inside").replaceChildren.apply($("inside"), first.map(function (n) {
        var item = element("li", ""), link = element("a", ""), id = element("b", name(n) + ".b" + behaviour(n));
        link.href = page(n);
        link.append(id, element("span", label(n)));
        link.addEventListener("focus", function () { hover = n; mark(); });
        link.addEventListener("pointerenter", function () { hover = n; mark(); });
        link.addEventListener("blur", leave);
        link.addEventListener("pointerleave", leave);
        item.append(link);
        return item;
      }));
      if (chosen.length > LISTED) {
        var rest = element("li", "and " + (chosen.length - LISTED).toLocaleString("en") + " more");
        rest.className = "rest";
        $("inside").append(rest);
      }
    });
  }
  function leave() { hover = -1; mark(); }

  // ---- Lighting up

  var latest = 0;
  function light(numbers, go) {
    lit = numbers && new Uint8Array(total);
    var around = [1, 1, 0, 0];
    if (numbers) numbers.forEach(function (n) {
      lit[n] = 1;
      if (X[n] === X[n]) around = [Math.min(around[0], X[n]), Math.min(around[1], Y[n]), Math.max(around[2], X[n]), Math.max(around[3], Y[n])];
    });
    recolour();
    if (!go || around[0] > around[2]) return;
    var to = framed(around);
    to.s = Math.min(to.s, fitted * 12);
    if (to.s > fitted * 1.5) fly(to); else whole();
  }
  function search(query, go) {
    var turn = ++latest, wanted = query.trim().toLowerCase();
    if (!wanted) { $("lit").textContent = ""; light(null); return; }
    if (Object.keys(labels).length < layers.length) $("lit").textContent = "Reading labels …";
    Promise.all(layers.map(function (layer) { return atlasLoad("search/l" + layer[0] + ".js"); })).then(function () {
      if (turn !== latest) return;
      var found = [];
      for (var n = 0; n < total; n++) if (label(n).toLowerCase().indexOf(wanted) >= 0) found.push(n);
      $("lit").textContent = found.length ? counted(found.length, "label") + (found.length === 1 ? " has" : " have") + " “" + wanted + "”." : "No label has “" + wanted + "”.";
      light(found, go);
    });
  }
  // `L3/N512.b2` is a behaviour; `L3/N512` all of a unit's.
  function goTo(text) {
    var match = /^L(\d+)\/N(\d+)(?:[.#]b(\d+))?$/.exec(text);
    var row = match ? place.findIndex(function (at) { return layers[at[0]][0] === +match[1] && at[1] === +match[2]; }) : -1;
    var own = [];
    for (var n = starts[row]; row >= 0 && n < starts[row + 1]; n++) if (!match[3] || behaviour(n) === +match[3]) own.push(n);
    if (!own.length) { $("lit").textContent = "There is no " + text.slice(0, 40) + " on this map."; return; }
    if (match[3]) { held = X[own[0]] === X[own[0]] ? own[0] : -1; fly({ x: X[own[0]], y: Y[own[0]], s: fitted * 8 }); }
    else { $("lit").textContent = counted(own.length, "behaviour") + " of " + text + "."; light(own, true); list(own); }
  }

  // ---- Hands and keys

  function listen() {
    var fingers = new Map(), before = null, travelled = 0, drawing = false, clicked = 0;
    function spot(event) { var frame = over.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; }
    function toMap(p) { return [view.x + (p[0] - view.w / 2) / view.s, view.y + (p[1] - view.h / 2) / view.s]; }
    function spread() {
      var two = Array.from(fingers.values());
      return two.length === 2 && { x: (two[0][0] + two[1][0]) / 2, y: (two[0][1] + two[1][1]) / 2, apart: Math.hypot(two[0][0] - two[1][0], two[0][1] - two[1][1]) || 1 };
    }
    function lassoing(on) { $("lasso").setAttribute("aria-pressed", on); over.classList.toggle("drawing", on); }
    function isLassoing() { return $("lasso").getAttribute("aria-pressed") === "true"; }

    over.addEventListener("pointerdown", function (event) {
      if (event.button) return;
      flight++;
      over.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, spot(event));
      travelled = 0;
      drawing = fingers.size === 1 && (event.shiftKey || isLassoing());
      rope = drawing ? [toMap(spot(event))] : null;
      before = spread();
    });
    over.addEventListener("pointermove", function (event) {
      var now = spot(event), last = fingers.get(event.pointerId);
      if (!last) {
        var n = event.pointerType === "touch" || isLassoing() ? -1 : nearest(now[0], now[1]);
        over.classList.toggle("on", n >= 0);
        if (n !== hover) { hover = n; mark(); }
        return;
      }
      travelled += Math.hypot(now[0] - last[0], now[1] - last[1]);
      fingers.set(event.pointerId, now);
      if (drawing) { rope.push(toMap(now)); mark(); return; }
      if (travelled < 4) return;
      hover = -1;
      over.classList.add("moving");
      var to = { x: view.x - (now[0] - last[0]) / view.s, y: view.y - (now[1] - last[1]) / view.s, s: view.s }, after = spread();
      if (before && after) {
        Object.assign(view, zoomed(after.apart / before.apart, after.x, after.y));
        to = { x: view.x - (after.x - before.x) / view.s, y: view.y - (after.y - before.y) / view.s, s: view.s };
        before = after;
      }
      move(to);
    });
    over.addEventListener("pointerup", function (event) {
      var tapped = fingers.size === 1 && travelled < 4, where = spot(event), n = tapped && !event.shiftKey ? nearest(where[0], where[1]) : -1;
      end(event);
      if (drawing) {
        drawing = false;
        var around = rope;
        rope = null;
        lassoing(false);
        if (around.length > 2) list(inside(around)); else mark();
        return;
      }
      if (!tapped) return;
      if (event.pointerType === "touch" && n !== held) { held = n; mark(); return; }
      if (n < 0) { held = -1; mark(); return; }
      if (event.ctrlKey || event.metaKey) { window.open(page(n), "_blank", "noopener"); return; }
      if (event.pointerType === "touch") { location.href = page(n); return; }
      // A second click means to zoom, not to open.
      clicked = setTimeout(function () { location.href = page(n); }, 230);
    });
    over.addEventListener("pointercancel", function (event) { rope = null; drawing = false; end(event); mark(); });
    over.addEventListener("pointerleave", leave);
    function end(event) { fingers.delete(event.pointerId); before = spread(); over.classList.remove("moving"); }

    over.addEventListener("wheel", function (event) {
      event.preventDefault();
      flight++;
      var where = spot(event), by = event.deltaY * (event.deltaMode ? 18 : 1) * (event.ctrlKey ? 5 : 1);
      move(zoomed(Math.exp(-Math.min(Math.max(by, -300), 300) * .0022), where[0], where[1]));
    }, { passive: false });
    over.addEventListener("dblclick", function (event) {
      clearTimeout(clicked);
      var where = spot(event);
      fly(zoomed(event.altKey ? .5 : 2, where[0], where[1]));
    });

    function step(factor) { fly(zoomed(factor, view.w / 2, view.h / 2)); }
    function listView() { list(inView()); $("chosen-title").focus(); }
    function clear() { rope = null; drawing = false; held = hover = -1; lassoing(false); list(null); }
    $("nearer").addEventListener("click", function () { step(1.6); });
    $("farther").addEventListener("click", function () { step(1 / 1.6); });
    $("whole").addEventListener("click", whole);
    $("lasso").addEventListener("click", function () { lassoing(!isLassoing()); });
    $("list").addEventListener("click", listView);
    $("clear").addEventListener("click", function () { clear(); over.focus(); });

    var pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    over.addEventListener("keydown", function (event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (pan[event.key]) fly({ x: view.x + pan[event.key][0] * view.w * .18 / view.s, y: view.y + pan[event.key][1] * view.h * .18 / view.s, s: view.s });
      else if (event.key === "+" || event.key === "=") step(1.6);
      else if (event.key === "-" || event.key === "_") step(1 / 1.6);
      else if (event.key === "0") whole();
      else if (event.key === "Enter") listView();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    document.addEventListener("keydown", function (event) {
      if (event.key === "Escape" && !/^(INPUT|DIALOG)$/.test(event.target.tagName)) clear();
    });

    document.querySelectorAll("input[name=by]").forEach(function (choice) {
      choice.addEventListener("change", function () { by = choice.value; recolour(); });
    });
    layers.forEach(function (layer, at) {
      var made = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox"; box.checked = true;
      box.setAttribute("aria-label", "Layer " + layer[0]);
      made.append(box, document.createElement("i"), String(layer[0]));
      box.addEventListener("change", function () { shownLayer[at] = box.checked ? 1 : 0; draw(); });
      $("layers").insertBefore(made, $("sets"));
    });
    function every(on) {
      shownLayer.fill(on);
      document.querySelectorAll("#layers input").forEach(function (box) { box.checked = !!on; });
      draw();
    }
    $("all").addEventListener("click", function () { every(1); });
    $("none").addEventListener("click", function () { every(0); });

    var timer;
    function typed() {
      var query = $("word").value;
      history.replaceState(null, "", location.pathname + (query.trim() ? "?q=" + encodeURIComponent(query.trim()) : ""));
      search(query);
    }
    $("word").addEventListener("input", function () { clearTimeout(timer); timer = setTimeout(typed, 150); });
    $("light").addEventListener("submit", function (event) { event.preventDefault(); clearTimeout(timer); typed(); });

    new ResizeObserver(resize).observe(chart);
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  }

  function begin() {
    // In an order in which no layer lies over the others.
    var stride = Math.max(1, Math.round(total * .618));
    while (gcd(stride, total) > 1) stride++;
    order = new Int32Array(total);
    for (var i = 0; i < total; i++) order[i] = i * stride % total;
    sortIntoCells();
    box = [1, 1, 0, 0];
    for (i = 0; i < total; i++) if (X[i] === X[i]) {
      box = [Math.min(box[0], X[i]), Math.min(box[1], Y[i]), Math.max(box[2], X[i]), Math.max(box[3], Y[i])];
    }
    chart.classList.add("live");
    canvas.hidden = over.hidden = false;
    view.s = fitted = 0;
    listen();
    resize();
    Object.assign(view, framed(box));
    recolour();
    var asked = new URLSearchParams(location.search), query = asked.get("q");
    if (query) { $("word").value = query; search(query, true); }
    if (asked.get("at")) goTo(asked.get("at"));
  }
  function gcd(a, b) { return b ? gcd(b, a % b) : a; }
})();
