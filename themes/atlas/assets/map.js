// The map of all behaviours: the view of its plane, the lists and lights of its page, from data in a script tag.
"use strict";
(function () {
  var LISTED = 200, NEAR = 14, DEEPEST = 400;
  function $(id) { return document.getElementById(id); }
  var chart = $("chart"), canvas = $("points"), over = $("over"), tip = $("tip");
  var noun = chart && chart.dataset.noun, calm = matchMedia("(prefers-reduced-motion: reduce)");
  var plane, drawing; // of plane.js and drawing.js, once the data are there

  // What is to be seen: what colours mean, which behaviours are lit (of all, 1 or 0), under the pointer, held, and
  // listed; the rope being drawn around some, of places in the plane. −1 or null is none.
  var scene = { by: "layer", lit: null, hover: -1, held: -1, chosen: null, rope: null };

  // What is in view: the middle, pixels to the plane's width (now, and with all in view), the size of the canvas.
  var view = {
    x: .5, y: .5, s: 0, fitted: 0, w: 1, h: 1,
    across: across, down: down, spot: spot, move: move, fly: fly, stop: stop, zoomed: zoomed, whole: whole
  };

  // ---- Frames: at most one at a time, dots only where they changed

  var due = { dots: false, over: false };
  function draw() { due.dots = true; mark(); }
  function mark() {
    if (due.over) return;
    due.over = true;
    requestAnimationFrame(function () {
      due.over = false;
      if (due.dots) { due.dots = false; drawing.paint(); }
      drawing.write();
      point();
    });
  }
  function recolour() { drawing.recolour(); draw(); }

  // ---- The view

  // Places of the plane on the canvas, and a point of the canvas in the plane.
  function across(x) { return (x - view.x) * view.s + view.w / 2; }
  function down(y) { return (y - view.y) * view.s + view.h / 2; }
  function spot(p) { return [view.x + (p[0] - view.w / 2) / view.s, view.y + (p[1] - view.h / 2) / view.s]; }

  function resize() {
    var fits = view.s === view.fitted;
    view.w = over.clientWidth; view.h = over.clientHeight;
    drawing.resize();
    var home = framed(plane.box);
    view.fitted = home.s;
    if (fits || !(view.s > 0)) Object.assign(view, home);
    draw();
  }
  function framed(around) {
    var margin = Math.min(40, view.w / 16);
    var s = Math.min((view.w - 2 * margin) / Math.max(around[2] - around[0], 1e-3), (view.h - 2 * margin) / Math.max(around[3] - around[1], 1e-3));
    return { x: (around[0] + around[2]) / 2, y: (around[1] + around[3]) / 2, s: s };
  }
  function hold(to) {
    var box = plane.box;
    to.s = Math.min(Math.max(to.s, view.fitted * .6), view.fitted * DEEPEST);
    to.x = Math.min(Math.max(to.x, box[0]), box[2]); to.y = Math.min(Math.max(to.y, box[1]), box[3]);
    return to;
  }
  function move(to) { Object.assign(view, hold(to)); draw(); }
  var flight = 0;
  function stop() { return ++flight; } // what flies sees that its turn is over
  function fly(to) {
    var from = { x: view.x, y: view.y, s: view.s }, begun = performance.now(), turn = stop();
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
  function whole() { fly(framed(plane.box)); }

  // ---- Saying what it is

  function element(kind, text) { var made = document.createElement(kind); made.textContent = text; return made; }
  function counted(count, what) { return count.toLocaleString("en") + " " + what + (count === 1 ? "" : "s"); }

  function hover(n) { scene.hover = n; mark(); }
  function leave() { hover(-1); }

  // The behaviour under a point of the canvas, or −1.
  function under(p) { var at = spot(p); return plane.nearest(at[0], at[1], NEAR / view.s, scene.lit); }

  function point() {
    var n = scene.hover >= 0 ? scene.hover : scene.held;
    tip.hidden = n < 0;
    if (n < 0) return;
    if (tip.dataset.of !== n + (plane.text(n) ? " told" : "")) say(n);
    var left = across(plane.X[n]), top = down(plane.Y[n]), wide = tip.offsetWidth, high = tip.offsetHeight;
    var x = Math.min(Math.max(left - wide / 2, 8), view.w - wide - 8), y = top - high - 16;
    if (y < 8) y = top + 18;
    tip.style.transform = "translate(" + Math.round(x) + "px," + Math.round(y) + "px)";
  }
  function say(n) {
    var found = plane.text(n);
    tip.dataset.of = n + (found ? " told" : "");
    tip.replaceChildren(element("b", found ? atlasVisible(found[0]) : "…"), element("span", plane.name(n) + ", behaviour " + plane.behaviour(n) + " of " + plane.siblings(n)));
    if (found) {
      var example = element("q", "");
      example.append(atlasVisible(found[1]), element("mark", atlasVisible(found[2])), atlasVisible(found[3]));
      tip.append(example);
    } else plane.loadText(n).then(mark);
  }

  function list(numbers) {
    var chosen = scene.chosen = numbers && Int32Array.from(numbers).sort();
    $("chosen").hidden = !chosen;
    $("inside").replaceChildren();
    mark();
    if (!chosen) return;
    var units = new Set(Array.from(chosen, function (n) { return plane.unitOf[n]; }));
    $("chosen-title").textContent = chosen.length ? counted(chosen.length, "behaviour") + " of " + counted(units.size, noun) : "No behaviour in there";
    var first = Array.from(chosen.subarray(0, LISTED));
    plane.loadLabels(first).then(function () {
      if (scene.chosen !== chosen) return;
      $("inside").replaceChildren.apply($("inside"), first.map(entry));
      if (chosen.length > LISTED) {
        var rest = element("li", "and " + (chosen.length - LISTED).toLocaleString("en") + " more");
        rest.className = "rest";
        $("inside").append(rest);
      }
    });
  }
  function entry(n) {
    var item = element("li", ""), link = element("a", ""), id = element("b", plane.name(n) + ".b" + plane.behaviour(n));
    link.href = plane.page(n);
    link.append(id, element("span", plane.label(n)));
    link.addEventListener("focus", function () { hover(n); });
    link.addEventListener("pointerenter", function () { hover(n); });
    link.addEventListener("blur", leave);
    link.addEventListener("pointerleave", leave);
    item.append(link);
    return item;
  }
  function listView() {
    var from = spot([0, 0]), to = spot([view.w, view.h]);
    list(plane.inside([from, [to[0], from[1]], to, [from[0], to[1]]]));
  }

  // ---- Lighting up

  var latest = 0;
  function light(numbers, go) {
    scene.lit = numbers && new Uint8Array(plane.total);
    if (numbers) numbers.forEach(function (n) { scene.lit[n] = 1; });
    recolour();
    var around = go && numbers && plane.around(numbers);
    if (!around || around[0] > around[2]) return;
    var to = framed(around);
    to.s = Math.min(to.s, view.fitted * 12);
    if (to.s > view.fitted * 1.5) fly(to); else whole();
  }
  function search(query, go) {
    var turn = ++latest, wanted = query.trim().toLowerCase();
    if (!wanted) { $("lit").textContent = ""; light(null); return; }
    if (!plane.labelled()) $("lit").textContent = "Reading labels …";
    plane.loadLabels().then(function () {
      if (turn !== latest) return;
      var found = plane.having(wanted);
      $("lit").textContent = found.length ? counted(found.length, "label") + (found.length === 1 ? " has" : " have") + " “" + wanted + "”." : "No label has “" + wanted + "”.";
      light(found, go);
    });
  }
  // To a behaviour or to all of a unit's, by name.
  function goTo(text) {
    var found = plane.named(text), own = found.numbers, x = plane.X[own[0]], y = plane.Y[own[0]];
    if (!own.length) { $("lit").textContent = "There is no " + text.slice(0, 40) + " on this map."; return; }
    if (found.one) { scene.held = x === x ? own[0] : -1; fly({ x: x, y: y, s: view.fitted * 8 }); }
    else { $("lit").textContent = counted(own.length, "behaviour") + " of " + text + "."; light(own, true); list(own); }
  }

  // ---- The beginning, which map/points.js calls

  window.atlasMap = function (data) {
    if (!chart) return;
    plane = atlasPlane(data);
    drawing = atlasDrawing(plane, view, scene, canvas, over);
    chart.classList.add("live");
    canvas.hidden = over.hidden = false;
    atlasHands(over, plane, view, scene, {
      draw: draw, mark: mark, recolour: recolour, hover: hover, under: under, list: list, listView: listView, search: search
    });
    new ResizeObserver(resize).observe(chart);
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    resize();
    recolour();
    var asked = new URLSearchParams(location.search), query = asked.get("q");
    if (query) { $("word").value = query; search(query, true); }
    if (asked.get("at")) goTo(asked.get("at"));
  };
})();
