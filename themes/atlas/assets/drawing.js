// The drawing of the map: dots on one canvas; words, rings and the rope on another that lies over it.
"use strict";
(function () {
  var EDGE = 24; // pixels drawn beyond the canvas, for dots that are half in view

  function mixed(stops, share) {
    var at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), from = Math.min(Math.floor(at), stops.length - 2);
    return stops[from].map(function (part, i) { return Math.round(part + (stops[from + 1][i] - part) * (at - from)); });
  }
  function packed(color) { return (color[2] << 16 | color[1] << 8 | color[0]) >>> 0; }
  function css(color) { return "rgb(" + color.join(" ") + ")"; }

  // A round dot as places around its middle in a canvas so wide, and how much each is covered, of 256.
  function stamp(radius, width, opacity) {
    var reach = Math.ceil(radius), at = [], cover = [];
    for (var dy = -reach; dy <= reach; dy++) for (var dx = -reach; dx <= reach; dx++) {
      var share = Math.min(1, Math.max(0, radius + .5 - Math.hypot(dx, dy)));
      if (share > .02) { at.push(dy * width + dx); cover.push(Math.round(256 * share * opacity)); }
    }
    return { reach: reach + 1, at: Int32Array.from(at), cover: Int32Array.from(cover) };
  }

  // All numbers below a total, in an order in which no layer lies over the others.
  function scattered(total) {
    var stride = Math.max(1, Math.round(total * .618)), order = new Int32Array(total);
    while (gcd(stride, total) > 1) stride++;
    for (var i = 0; i < total; i++) order[i] = i * stride % total;
    return order;
  }
  function gcd(a, b) { return b ? gcd(b, a % b) : a; }

  // Of a plane, as much of it as a view shows, in the state of `scene`: map.js says what these hold.
  window.atlasDrawing = function (plane, view, scene, canvas, over) {
    var total = plane.total, X = plane.X, Y = plane.Y, layerOf = plane.layerOf, shown = plane.shown, words = plane.words;
    var order = scattered(total), colour = new Uint32Array(total), ground, look = {}, written = [];
    var most = Math.max(Float32Array.from(plane.effective).sort()[Math.floor(total * .98)], 1.5);
    var image, pixels;

    function resize() {
      var ratio = Math.min(window.devicePixelRatio || 1, 2);
      [canvas, over].forEach(function (made) { made.width = Math.round(view.w * ratio); made.height = Math.round(view.h * ratio); });
    }

    function rgb(name) {
      var probe = over.getContext("2d");
      probe.fillStyle = getComputedStyle(over).getPropertyValue(name).trim();
      var value = parseInt(probe.fillStyle.slice(1), 16);
      return [value >> 16, value >> 8 & 255, value & 255];
    }

    // Each dot's colour, from the style sheet: again whenever the theme, the question or the search changes.
    function recolour() {
      var m = [0, 1, 2, 3, 4, 5, 6].map(function (i) { return rgb("--m" + i); });
      var p = [0, 1, 2, 3].map(function (i) { return rgb("--p" + i); });
      var paper = rgb("--card"), dim = packed(mixed([paper, rgb("--c0")], .32)), hit = packed(rgb("--c2"));
      var layers = plane.layers.length, effective = plane.effective, lit = scene.lit, by = scene.by;
      var ofLayer = plane.layers.map(function (_, at) { return mixed(m, layers > 1 ? at / (layers - 1) : 0); });
      var style = getComputedStyle(over);
      ["ink", "sans", "mono"].forEach(function (name) { look[name] = style.getPropertyValue("--" + name); });
      look.paper = css(paper);
      ground = (packed(paper) | 0xff000000) >>> 0;
      for (var n = 0; n < total; n++) {
        if (lit) colour[n] = lit[n] ? hit : dim;
        else if (by === "layer") colour[n] = packed(ofLayer[layerOf[n]]);
        else colour[n] = packed(mixed(p, Math.log(Math.max(effective[n], 1)) / Math.log(most)));
      }
      document.getElementById("ramp").hidden = by === "layer";
      document.getElementById("most").textContent = most.toFixed(1) + "+";
      document.querySelectorAll("#layers i").forEach(function (dot, at) {
        dot.style.setProperty("--dot", css(by === "layer" ? ofLayer[at] : rgb("--c0")));
      });
    }

    function paint() {
      var pen = canvas.getContext("2d", { alpha: false }), w = canvas.width + 2 * EDGE, h = canvas.height + 2 * EDGE;
      if (!image || image.width !== w || image.height !== h) {
        image = pen.createImageData(w, h);
        pixels = new Uint32Array(image.data.buffer);
      }
      pixels.fill(ground);
      var ratio = canvas.width / view.w, scale = view.s * ratio, zoom = view.s / view.fitted, lit = scene.lit;
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
          if (!shown[layerOf[n]] || lit && lit[n] !== wanted) continue;
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

    function measured(pen, text) {
      var sign = !/[\p{L}\p{N}]/u.test(text);
      pen.font = sign ? "600 13px " + look.mono : "500 13px " + look.sans;
      return { text: text, sign: sign, font: pen.font, half: pen.measureText(text).width / 2 + 7 };
    }

    // What lies over the dots: words where there is room, the rope, rings.
    function write() {
      var pen = over.getContext("2d"), ratio = over.width / view.w, ink = look.ink, paper = look.paper;
      var chosen = scene.chosen, held = scene.held, hover = scene.hover, rope = scene.rope;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, view.w, view.h);
      var deep = Math.log2(view.s / view.fitted) + 1.01, taken = [];
      pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
      pen.strokeStyle = paper; pen.fillStyle = ink;
      var room = Math.max(6, Math.round(view.w * view.h / 16000));
      for (var i = 0; i < words.length && words[i][2] <= deep && taken.length < room && !scene.lit; i++) {
        var x = view.across(words[i][0]), y = view.down(words[i][1]) - 15; // above what they name
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
        rope.forEach(function (point) { pen.lineTo(view.across(point[0]), view.down(point[1])); });
        pen.closePath();
        pen.globalAlpha = .1; pen.fillStyle = ink; pen.fill();
        pen.globalAlpha = 1; pen.strokeStyle = ink; pen.lineWidth = 1.5; pen.setLineDash([5, 4]); pen.stroke(); pen.setLineDash([]);
      }
      function ring(n, radius, width, alpha) {
        pen.globalAlpha = alpha; pen.beginPath(); pen.arc(view.across(X[n]), view.down(Y[n]), radius, 0, 7);
        pen.strokeStyle = ink; pen.lineWidth = width; pen.stroke();
      }
    }

    return { resize: resize, recolour: recolour, paint: paint, write: write };
  };
})();
