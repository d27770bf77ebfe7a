// The drawing of the map: dots on one canvas; words, rings and the lasso on another that lies over it.
"use strict";

{
  const EDGE = 24; // pixels drawn beyond the canvas, for dots that are half in view

  // Of a list of colours [red, green, blue], the one at a share of the way from the first to the last.
  const mixed = (stops, share) => {
    const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
    const from = Math.min(Math.floor(at), stops.length - 2);
    return stops[from].map((part, i) => Math.round(part + (stops[from + 1][i] - part) * (at - from)));
  };
  const packed = ([red, green, blue]) => ((blue << 16) | (green << 8) | red) >>> 0;
  const css = (color) => `rgb(${color.join(" ")})`;

  // A round dot as steps from its middle in an image so wide, and how much each pixel is covered, of 256.
  const stamp = (radius, width, opacity) => {
    const reach = Math.ceil(radius);
    const steps = [];
    const cover = [];
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        const share = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
        if (share <= 0.02) continue;
        steps.push(dy * width + dx);
        cover.push(Math.round(256 * share * opacity));
      }
    }
    return { reach: reach + 1, steps: Int32Array.from(steps), cover: Int32Array.from(cover) };
  };

  const gcd = (a, b) => (b ? gcd(b, a % b) : a);

  // All numbers below a total, in an order in which no layer lies over the others.
  const scattered = (total) => {
    let stride = Math.max(1, Math.round(total * 0.618));
    while (gcd(stride, total) > 1) stride++;
    const order = new Int32Array(total);
    for (let i = 0; i < total; i++) order[i] = (i * stride) % total;
    return order;
  };

  // Draws as much of a MapData as a view shows, in a state: map-page.js says what these hold.
  Atlas.MapCanvas = class {
    #data;
    #view;
    #state;
    #dots; // the canvases
    #overlay;
    #order;
    #colours;
    #background;
    #style = {};
    #measured = []; // the words, once each
    #mostEffective; // the effective number of behaviours that has the last colour of the ramp
    #image;
    #pixels;

    constructor(data, view, state, dots, overlay) {
      this.#data = data;
      this.#view = view;
      this.#state = state;
      this.#dots = dots;
      this.#overlay = overlay;
      this.#order = scattered(data.total);
      this.#colours = new Uint32Array(data.total);
      this.#mostEffective = Math.max(data.effective.slice().sort()[Math.floor(data.total * 0.98)], 1.5);
    }

    resize() {
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      for (const canvas of [this.#dots, this.#overlay]) {
        canvas.width = Math.round(this.#view.width * ratio);
        canvas.height = Math.round(this.#view.height * ratio);
      }
    }

    // A colour of the style sheet, whichever way it is written there.
    #rgb(name) {
      this.#overlay.style.color = `var(${name})`;
      return getComputedStyle(this.#overlay)
        .color.match(/[\d.]+/g)
        .slice(0, 3)
        .map(Number);
    }

    // Each dot's colour, again whenever the theme, what colours mean or what is highlighted changes.
    recolour() {
      const { layers, layerOf, effective, total } = this.#data;
      const { highlighted, colourBy } = this.#state;
      const ramp = (letter, stops) => Array.from({ length: stops }, (_, i) => this.#rgb(`--${letter}${i}`));
      const layerStops = ramp("m", 7);
      const effectiveStops = ramp("p", 4);
      const ofLayer = layers.map((_, i) => mixed(layerStops, layers.length > 1 ? i / (layers.length - 1) : 0));
      const paper = this.#rgb("--card");
      const faint = packed(mixed([paper, this.#rgb("--c0")], 0.32));
      const bright = packed(this.#rgb("--c2"));
      const style = getComputedStyle(this.#overlay);
      for (const name of ["sans", "mono"]) this.#style[name] = style.getPropertyValue(`--${name}`);
      this.#style.ink = css(this.#rgb("--ink"));
      this.#style.paper = css(paper);
      this.#background = (packed(paper) | 0xff000000) >>> 0;
      const byEffective = (value) =>
        packed(mixed(effectiveStops, Math.log(Math.max(value, 1)) / Math.log(this.#mostEffective)));
      for (let i = 0; i < total; i++) {
        if (highlighted) this.#colours[i] = highlighted[i] ? bright : faint;
        else this.#colours[i] = colourBy === "layer" ? packed(ofLayer[layerOf[i]]) : byEffective(effective[i]);
      }
      this.#showKey(colourBy === "layer" ? ofLayer : null);
    }

    #showKey(ofLayer) {
      document.getElementById("ramp").hidden = ofLayer !== null;
      document.getElementById("most").textContent = `${this.#mostEffective.toFixed(1)}+`;
      document.querySelectorAll("#layers i").forEach((dot, layer) => {
        dot.style.setProperty("--dot", css(ofLayer?.[layer] ?? this.#rgb("--c0")));
      });
    }

    paint() {
      const canvas = this.#dots;
      const context = canvas.getContext("2d", { alpha: false });
      const width = canvas.width + 2 * EDGE;
      const height = canvas.height + 2 * EDGE;
      if (this.#image?.width !== width || this.#image.height !== height) {
        this.#image = context.createImageData(width, height);
        this.#pixels = new Uint32Array(this.#image.data.buffer);
      }
      this.#pixels.fill(this.#background);
      const { total } = this.#data;
      const ratio = canvas.width / this.#view.width;
      const zoom = this.#view.scale / this.#view.fittedScale;
      // Dots of few behaviours are larger, and all grow more slowly than the map.
      const radius = Math.min(7, Math.max(0.9, 4.4 - 0.75 * Math.log10(total + 1)) * zoom ** 0.38) * ratio;
      const opacity = Math.min(0.92, 0.62 + 0.1 * Math.log2(Math.max(zoom, 1)) + (total < 20000 ? 0.14 : 0));
      this.#paintDots(stamp(radius, width, opacity), 0, this.#view.scale * ratio);
      if (this.#state.highlighted) {
        this.#paintDots(stamp(Math.max(radius * 1.35, 1.6 * ratio), width, 0.95), 1, this.#view.scale * ratio);
      }
      context.putImageData(this.#image, -EDGE, -EDGE);
    }

    // All dots; where some are highlighted, those that are (1) or are not (0).
    #paintDots({ steps, cover, reach }, which, scale) {
      const { total, layerOf, shown } = this.#data;
      const [xs, ys, order, colours, pixels] = [this.#data.x, this.#data.y, this.#order, this.#colours, this.#pixels];
      const { highlighted } = this.#state;
      const { width, height } = this.#image;
      const left = width / 2 - this.#view.x * scale;
      const top = height / 2 - this.#view.y * scale;
      for (let place = 0; place < total; place++) {
        const i = order[place];
        if (!shown[layerOf[i]] || (highlighted && highlighted[i] !== which)) continue;
        const x = Math.round(xs[i] * scale + left);
        const y = Math.round(ys[i] * scale + top);
        if (!(x >= reach && x < width - reach && y >= reach && y < height - reach)) continue;
        const middle = y * width + x;
        const redBlue = colours[i] & 0xff00ff;
        const green = colours[i] & 0xff00;
        for (let step = 0; step < steps.length; step++) {
          // Two channels at once: what spills over falls to the mask.
          const at = middle + steps[step];
          const oldRedBlue = pixels[at] & 0xff00ff;
          const oldGreen = pixels[at] & 0xff00;
          pixels[at] =
            0xff000000 |
            ((oldRedBlue + (Math.imul(redBlue - oldRedBlue, cover[step]) >> 8)) & 0xff00ff) |
            ((oldGreen + (Math.imul(green - oldGreen, cover[step]) >> 8)) & 0xff00);
        }
      }
    }

    // What lies over the dots: words where there is room, the lasso, rings.
    paintOverlay() {
      const context = this.#overlay.getContext("2d");
      const { selected, held, hover, lasso } = this.#state;
      const ratio = this.#overlay.width / this.#view.width;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, this.#view.width, this.#view.height);
      if (!this.#state.highlighted) this.#paintWords(context);
      if (selected && !lasso && selected.length <= 1000) {
        for (const behaviour of selected) this.#paintRing(context, behaviour, 4.5, 1, 0.55);
      }
      if (held >= 0) this.#paintRing(context, held, 9, 2.5, 1);
      if (hover >= 0 && hover !== held) this.#paintRing(context, hover, 7, 2, 1);
      if (lasso) this.#paintLasso(context, lasso);
    }

    #measure(context, text) {
      const isSign = !/[\p{L}\p{N}]/u.test(text);
      const font = isSign ? `600 13px ${this.#style.mono}` : `500 13px ${this.#style.sans}`;
      context.font = font;
      return { text, isSign, font, half: context.measureText(text).width / 2 + 7 };
    }

    #paintWords(context) {
      const { width, height, scale, fittedScale } = this.#view;
      const { words } = this.#data;
      const deepest = Math.log2(scale / fittedScale) + 1.01;
      const room = Math.max(6, Math.round((width * height) / 16000));
      const taken = [];
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.lineJoin = "round";
      context.strokeStyle = this.#style.paper;
      for (let i = 0; i < words.length && words[i][2] <= deepest && taken.length < room; i++) {
        const [placeX, placeY, , text] = words[i];
        const x = this.#view.toScreenX(placeX);
        const y = this.#view.toScreenY(placeY) - 15; // above what they name
        const word = (this.#measured[i] ??= this.#measure(context, Atlas.visible(text)));
        const { half } = word;
        if (x < half || x > width - half || y < 12 || y > height - 12) continue;
        if (x + half > width - 60 && y < 220 && width > 560) continue; // the buttons are there
        if (taken.some((other) => Math.abs(other.x - x) < other.half + half && Math.abs(other.y - y) < 24)) continue;
        taken.push({ x, y, half });
        this.#paintWord(context, word, x, y);
      }
      context.globalAlpha = 1;
    }

    #paintWord(context, { text, isSign, font, half }, x, y) {
      const { ink, paper } = this.#style;
      context.font = font;
      // Signs such as a comma are lost among dots unless they have a ground of their own.
      if (isSign) {
        context.globalAlpha = 0.9;
        context.fillStyle = paper;
        context.beginPath();
        context.arc(x - half + 10, y, 9, Math.PI / 2, -Math.PI / 2);
        context.arc(x + half - 10, y, 9, -Math.PI / 2, Math.PI / 2);
        context.fill();
      } else {
        context.globalAlpha = 0.85;
        context.lineWidth = 4;
        context.strokeText(text, x, y);
      }
      context.globalAlpha = 1;
      context.fillStyle = ink;
      context.fillText(text, x, y);
    }

    #paintRing(context, behaviour, radius, lineWidth, alpha) {
      const { x, y } = this.#data;
      context.globalAlpha = alpha;
      context.beginPath();
      context.arc(this.#view.toScreenX(x[behaviour]), this.#view.toScreenY(y[behaviour]), radius, 0, 2 * Math.PI);
      context.strokeStyle = this.#style.ink;
      context.lineWidth = lineWidth;
      context.stroke();
    }

    #paintLasso(context, lasso) {
      context.beginPath();
      for (const [x, y] of lasso) context.lineTo(this.#view.toScreenX(x), this.#view.toScreenY(y));
      context.closePath();
      context.globalAlpha = 0.1;
      context.fillStyle = this.#style.ink;
      context.fill();
      context.globalAlpha = 1;
      context.strokeStyle = this.#style.ink;
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.stroke();
      context.setLineDash([]);
    }
  };
}
