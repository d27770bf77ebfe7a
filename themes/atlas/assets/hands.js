// The reader's hands on the map: pointer, wheel and keys on its canvas, and the controls around it.
"use strict";
(function () {
  function $(id) { return document.getElementById(id); }

  // `map` is what map.js does at their word.
  window.atlasHands = function (over, plane, view, scene, map) {
    var fingers = new Map(), before = null, travelled = 0, drawing = false, clicked = 0;
    function point(event) { var frame = over.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; }
    function spread() {
      var two = Array.from(fingers.values());
      return two.length === 2 && { x: (two[0][0] + two[1][0]) / 2, y: (two[0][1] + two[1][1]) / 2, apart: Math.hypot(two[0][0] - two[1][0], two[0][1] - two[1][1]) || 1 };
    }
    function lassoing(on) { $("lasso").setAttribute("aria-pressed", on); over.classList.toggle("drawing", on); }
    function isLassoing() { return $("lasso").getAttribute("aria-pressed") === "true"; }

    // ---- Pointer and wheel

    over.addEventListener("pointerdown", function (event) {
      if (event.button) return;
      view.stop();
      over.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, point(event));
      travelled = 0;
      drawing = fingers.size === 1 && (event.shiftKey || isLassoing());
      scene.rope = drawing ? [view.spot(point(event))] : null;
      before = spread();
    });
    over.addEventListener("pointermove", function (event) {
      var now = point(event), last = fingers.get(event.pointerId);
      if (!last) {
        var n = event.pointerType === "touch" || isLassoing() ? -1 : map.under(now);
        over.classList.toggle("on", n >= 0);
        if (n !== scene.hover) map.hover(n);
        return;
      }
      travelled += Math.hypot(now[0] - last[0], now[1] - last[1]);
      fingers.set(event.pointerId, now);
      if (drawing) { scene.rope.push(view.spot(now)); map.mark(); return; }
      if (travelled < 4) return;
      scene.hover = -1;
      over.classList.add("moving");
      var to = { x: view.x - (now[0] - last[0]) / view.s, y: view.y - (now[1] - last[1]) / view.s, s: view.s }, after = spread();
      if (before && after) {
        Object.assign(view, view.zoomed(after.apart / before.apart, after.x, after.y));
        to = { x: view.x - (after.x - before.x) / view.s, y: view.y - (after.y - before.y) / view.s, s: view.s };
        before = after;
      }
      view.move(to);
    });
    over.addEventListener("pointerup", function (event) {
      var tapped = fingers.size === 1 && travelled < 4, n = tapped && !event.shiftKey ? map.under(point(event)) : -1;
      end(event);
      if (drawing) {
        drawing = false;
        var around = scene.rope;
        scene.rope = null;
        lassoing(false);
        if (around.length > 2) map.list(plane.inside(around)); else map.mark();
        return;
      }
      if (!tapped) return;
      if (event.pointerType === "touch" && n !== scene.held) { scene.held = n; map.mark(); return; }
      if (n < 0) { scene.held = -1; map.mark(); return; }
      if (event.ctrlKey || event.metaKey) { window.open(plane.page(n), "_blank", "noopener"); return; }
      if (event.pointerType === "touch") { location.href = plane.page(n); return; }
      // A second click means to zoom, not to open.
      clearTimeout(clicked);
      clicked = setTimeout(function () { location.href = plane.page(n); }, 230);
    });
    over.addEventListener("pointercancel", function (event) { scene.rope = null; drawing = false; end(event); map.mark(); });
    over.addEventListener("pointerleave", function () { map.hover(-1); });
    function end(event) { fingers.delete(event.pointerId); before = spread(); over.classList.remove("moving"); }

    over.addEventListener("wheel", function (event) {
      event.preventDefault();
      view.stop();
      var where = point(event), by = event.deltaY * (event.deltaMode ? 18 : 1) * (event.ctrlKey ? 5 : 1);
      view.move(view.zoomed(Math.exp(-Math.min(Math.max(by, -300), 300) * .0022), where[0], where[1]));
    }, { passive: false });
    over.addEventListener("dblclick", function (event) {
      clearTimeout(clicked);
      var where = point(event);
      view.fly(view.zoomed(event.altKey ? .5 : 2, where[0], where[1]));
    });

    // ---- Buttons and keys

    function step(factor) { view.fly(view.zoomed(factor, view.w / 2, view.h / 2)); }
    function listView() { map.listView(); $("chosen-title").focus(); }
    function clear() { scene.rope = null; drawing = false; scene.held = scene.hover = -1; lassoing(false); map.list(null); }
    $("nearer").addEventListener("click", function () { step(1.6); });
    $("farther").addEventListener("click", function () { step(1 / 1.6); });
    $("whole").addEventListener("click", view.whole);
    $("lasso").addEventListener("click", function () { lassoing(!isLassoing()); });
    $("list").addEventListener("click", listView);
    $("clear").addEventListener("click", function () { clear(); over.focus(); });

    var pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    over.addEventListener("keydown", function (event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (pan[event.key]) view.fly({ x: view.x + pan[event.key][0] * view.w * .18 / view.s, y: view.y + pan[event.key][1] * view.h * .18 / view.s, s: view.s });
      else if (event.key === "+" || event.key === "=") step(1.6);
      else if (event.key === "-" || event.key === "_") step(1 / 1.6);
      else if (event.key === "0") view.whole();
      else if (event.key === "Enter") listView();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    document.addEventListener("keydown", function (event) {
      if (event.key === "Escape" && !/^(INPUT|DIALOG)$/.test(event.target.tagName)) clear();
    });

    // ---- Colour, layers, and the word to light up

    document.querySelectorAll("input[name=by]").forEach(function (choice) {
      choice.addEventListener("change", function () { scene.by = choice.value; map.recolour(); });
    });
    plane.layers.forEach(function (layer, at) {
      var made = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox"; box.checked = true;
      box.setAttribute("aria-label", "Layer " + layer[0]);
      made.append(box, document.createElement("i"), String(layer[0]));
      box.addEventListener("change", function () { plane.shown[at] = box.checked ? 1 : 0; map.draw(); });
      $("layers").insertBefore(made, $("sets"));
    });
    function every(on) {
      plane.shown.fill(on);
      document.querySelectorAll("#layers input").forEach(function (box) { box.checked = !!on; });
      map.draw();
    }
    $("all").addEventListener("click", function () { every(1); });
    $("none").addEventListener("click", function () { every(0); });

    var timer;
    function typed() {
      var query = $("word").value;
      history.replaceState(null, "", location.pathname + (query.trim() ? "?q=" + encodeURIComponent(query.trim()) : ""));
      map.search(query);
    }
    $("word").addEventListener("input", function () { clearTimeout(timer); timer = setTimeout(typed, 150); });
    $("light").addEventListener("submit", function (event) { event.preventDefault(); clearTimeout(timer); typed(); });
  };
})();
