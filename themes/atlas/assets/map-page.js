// The map of all behaviours: its view, the lists and highlights of its page, from data in a script tag.
"use strict";

{
  const MOST_LISTED = 200;
  const REACH = 14; // pixels within which a behaviour is pointed at
  const DEEPEST = 400; // times the whole
  const FLIGHT = 260; // milliseconds
  const byId = (id) => document.getElementById(id);
  const chart = byId("chart");
  const dots = byId("points");
  const overlay = byId("over");
  const tip = byId("tip");
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
  let data; // a MapData and a MapCanvas, once the data are there
  let drawing;

  // What is to be seen. Behaviours are indices, −1 or null for none; `highlighted` has 1 or 0 for each of all;
  // `lasso` is the line being drawn around some.
  const state = { colourBy: "layer", highlighted: null, hover: -1, held: -1, selected: null, lasso: null };

  // ---- Frames: at most one at a time, dots only where they changed

  const due = { dots: false, frame: false };
  const frame = () => {
    due.frame = false;
    if (due.dots) drawing.paint();
    due.dots = false;
    drawing.paintOverlay();
    placeTip();
  };
  const markChanged = () => {
    if (!due.frame) requestAnimationFrame(frame);
    due.frame = true;
  };
  const dotsChanged = () => {
    due.dots = true;
    markChanged();
  };
  const recolour = () => {
    drawing.recolour();
    dotsChanged();
  };

  // ---- The view

  // What is in view: its middle in the map, pixels to the map's width (now, and with all in view), the canvas's size.
  const view = {
    x: 0.5,
    y: 0.5,
    scale: 0,
    fittedScale: 0,
    width: 1,
    height: 1,

    // Places of the map on the canvas, and a point of the canvas in the map.
    toScreenX: (x) => (x - view.x) * view.scale + view.width / 2,
    toScreenY: (y) => (y - view.y) * view.scale + view.height / 2,
    toData: ([left, top]) => [
      view.x + (left - view.width / 2) / view.scale,
      view.y + (top - view.height / 2) / view.scale,
    ],

    move(target) {
      Object.assign(view, bounded(target));
      dotsChanged();
    },

    // What animates sees that its turn is over.
    turn: 0,
    stop: () => ++view.turn,

    animate(target) {
      const from = { x: view.x, y: view.y, scale: view.scale };
      const begun = performance.now();
      const turn = view.stop();
      bounded(target);
      if (reducedMotion.matches) return view.move(target);
      const step = (now) => {
        if (turn !== view.turn) return;
        const share = clamp((now - begun) / FLIGHT, 0, 1);
        const eased = share * (2 - share);
        const scale = from.scale * (target.scale / from.scale) ** eased;
        // What lies in the middle of the flight stays on a line, however much it zooms.
        const way =
          target.scale === from.scale ? eased : (1 / from.scale - 1 / scale) / (1 / from.scale - 1 / target.scale);
        view.move({
          x: from.x + (target.x - from.x) * way,
          y: from.y + (target.y - from.y) * way,
          scale: share === 1 ? target.scale : scale,
        });
        if (share < 1) requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    },

    // The view when what is under a point of the canvas stays there.
    zoomed(factor, left, top) {
      const { scale } = bounded({ x: 0.5, y: 0.5, scale: view.scale * factor });
      const part = 1 / view.scale - 1 / scale;
      return { x: view.x + (left - view.width / 2) * part, y: view.y + (top - view.height / 2) * part, scale };
    },

    showAll: () => view.animate(fitted(data.bounds)),
  };

  // The view that has all of [left, top, right, bottom] in it.
  const fitted = ([left, top, right, bottom]) => {
    const margin = Math.min(40, view.width / 16);
    const scale = Math.min(
      (view.width - 2 * margin) / Math.max(right - left, 1e-3),
      (view.height - 2 * margin) / Math.max(bottom - top, 1e-3),
    );
    return { x: (left + right) / 2, y: (top + bottom) / 2, scale };
  };

  // Holds a view to the map.
  const bounded = (target) => {
    const [left, top, right, bottom] = data.bounds;
    target.scale = clamp(target.scale, view.fittedScale * 0.6, view.fittedScale * DEEPEST);
    target.x = clamp(target.x, left, right);
    target.y = clamp(target.y, top, bottom);
    return target;
  };

  const resize = () => {
    const showedAll = view.scale === view.fittedScale;
    view.width = overlay.clientWidth;
    view.height = overlay.clientHeight;
    drawing.resize();
    const all = fitted(data.bounds);
    view.fittedScale = all.scale;
    if (showedAll || !(view.scale > 0)) Object.assign(view, all);
    dotsChanged();
  };

  // ---- Saying what it is

  const element = (tag, text) => {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  };
  const counted = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

  const setHover = (behaviour) => {
    state.hover = behaviour;
    markChanged();
  };

  // The behaviour under a point of the canvas, or −1.
  const behaviourAt = (point) => data.nearest(...view.toData(point), REACH / view.scale, state.highlighted);

  const placeTip = () => {
    const behaviour = state.hover >= 0 ? state.hover : state.held;
    tip.hidden = behaviour < 0;
    if (behaviour < 0) return;
    fillTip(behaviour);
    const [left, top] = [view.toScreenX(data.x[behaviour]), view.toScreenY(data.y[behaviour])];
    const { offsetWidth: width, offsetHeight: height } = tip;
    const x = Math.min(Math.max(left - width / 2, 8), view.width - width - 8);
    const y = top - height - 16 < 8 ? top + 18 : top - height - 16;
    tip.style.transform = `translate(${Math.round(x)}px,${Math.round(y)}px)`;
  };
  const fillTip = (behaviour) => {
    const found = data.text(behaviour);
    const filled = `${behaviour}${found ? " with text" : ""}`;
    if (tip.dataset.of === filled) return;
    tip.dataset.of = filled;
    const [label, ...example] = found?.map(Atlas.visible) ?? ["…"];
    const number = `behaviour ${data.numberInUnit(behaviour)} of ${data.siblings(behaviour)}`;
    const place = `${data.unitName(behaviour)}, ${number}`;
    tip.replaceChildren(element("b", label), element("span", place));
    if (found) {
      const [before, key, after] = example;
      const quote = element("q", "");
      quote.append(before, element("mark", key), after);
      tip.append(quote);
    } else data.loadText(behaviour).then(markChanged);
  };

  // ---- What is selected

  const select = async (behaviours) => {
    const selected = (state.selected = behaviours && Int32Array.from(behaviours).sort());
    byId("chosen").hidden = !selected;
    byId("inside").replaceChildren();
    markChanged();
    if (!selected) return;
    const units = new Set(Array.from(selected, (behaviour) => data.unitOf[behaviour]));
    byId("chosen-title").textContent = selected.length
      ? `${counted(selected.length, "behaviour")} of ${counted(units.size, chart.dataset.noun)}`
      : "No behaviours there";
    const first = Array.from(selected.subarray(0, MOST_LISTED));
    await data.loadLabels(first);
    if (state.selected !== selected) return;
    byId("inside").replaceChildren(...first.map(listItem));
    if (selected.length > MOST_LISTED) {
      const rest = element("li", `and ${(selected.length - MOST_LISTED).toLocaleString("en")} more`);
      rest.className = "rest";
      byId("inside").append(rest);
    }
  };
  const listItem = (behaviour) => {
    const item = element("li", "");
    const link = element("a", "");
    link.href = data.page(behaviour);
    const name = `${data.unitName(behaviour)}.b${data.numberInUnit(behaviour)}`;
    link.append(element("b", name), element("span", data.label(behaviour)));
    for (const kind of ["focus", "pointerenter"]) link.addEventListener(kind, () => setHover(behaviour));
    for (const kind of ["blur", "pointerleave"]) link.addEventListener(kind, () => setHover(-1));
    item.append(link);
    return item;
  };
  const selectView = () => {
    const [left, top] = view.toData([0, 0]);
    const [right, bottom] = view.toData([view.width, view.height]);
    select(
      data.inside([
        [left, top],
        [right, top],
        [right, bottom],
        [left, bottom],
      ]),
    );
  };

  // ---- Highlights

  const say = (text) => (byId("lit").textContent = text);

  const highlight = (behaviours, { goThere = false } = {}) => {
    state.highlighted = behaviours && new Uint8Array(data.total);
    for (const behaviour of behaviours ?? []) state.highlighted[behaviour] = 1;
    recolour();
    if (!goThere || !behaviours) return;
    const bounds = data.boundsOf(behaviours);
    if (bounds[0] > bounds[2]) return;
    const target = fitted(bounds);
    target.scale = Math.min(target.scale, view.fittedScale * 12);
    if (target.scale > view.fittedScale * 1.5) view.animate(target);
    else view.showAll();
  };

  let latest = 0; // the query that is still wanted
  const highlightWord = async (query, options) => {
    const turn = ++latest;
    const wanted = query.trim().toLowerCase();
    if (!wanted) {
      say("");
      highlight(null);
      return;
    }
    if (!data.hasAllLabels()) say("Reading labels …");
    await data.loadLabels();
    if (turn !== latest) return;
    const found = data.labelled(wanted);
    const verb = found.length === 1 ? "has" : "have";
    say(found.length ? `${counted(found.length, "label")} ${verb} “${wanted}”.` : `No label has “${wanted}”.`);
    highlight(found, options);
  };

  // To a behaviour or to all of a unit's, by name.
  const goTo = (name) => {
    const { behaviours, isOne } = data.named(name);
    if (!behaviours.length) {
      say(`There is no ${name.slice(0, 40)} on this map.`);
    } else if (isOne) {
      const [behaviour] = behaviours;
      if (!data.isPlaced(behaviour)) return;
      state.held = behaviour;
      view.animate({ x: data.x[behaviour], y: data.y[behaviour], scale: view.fittedScale * 8 });
    } else {
      say(`${counted(behaviours.length, "behaviour")} of ${name}.`);
      highlight(behaviours, { goThere: true });
      select(behaviours);
    }
  };

  // ---- The beginning, which map/points.js calls

  Atlas.map = (points) => {
    if (!chart) return;
    data = new Atlas.MapData(points);
    drawing = new Atlas.MapCanvas(data, view, state, dots, overlay);
    chart.classList.add("live");
    dots.hidden = overlay.hidden = false;
    const page = { dotsChanged, markChanged, recolour, setHover, behaviourAt, select, selectView, highlightWord };
    Atlas.listenToMap(overlay, data, view, state, page);
    new ResizeObserver(resize).observe(chart);
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    // A browser takes what is printed before the next frame.
    matchMedia("print").addEventListener("change", () => {
      recolour();
      frame();
    });
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)", "(prefers-contrast: more)"]) {
      matchMedia(query).addEventListener("change", recolour);
    }
    resize();
    recolour();
    const asked = new URLSearchParams(location.search);
    if (asked.get("q")) {
      byId("word").value = asked.get("q");
      highlightWord(asked.get("q"), { goThere: true });
    }
    if (asked.get("at")) goTo(asked.get("at"));
  };
}
