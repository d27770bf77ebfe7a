// What a reader does on the map: pointer, wheel and keys on its canvas, and the controls around it.
"use strict";

{
  const STILL = 4; // pixels that a finger may move in a tap
  const DOUBLE_CLICK = 230; // milliseconds
  const STEP = 1.6; // of a button that zooms
  const PAN = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const PAN_SHARE = 0.18; // of the view
  const byId = (id) => document.getElementById(id);

  // `page` is what map-page.js does at a reader's word.
  Atlas.listenToMap = (canvas, data, view, state, page) => {
    const pointers = new Map(); // those that are down, by id: where they are on the canvas
    let pinch = null; // middle and distance of two pointers
    let travelled = 0;
    let isDrawing = false;
    let opening = 0; // the timer of a click

    const position = (event) => {
      const frame = canvas.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    const pinched = () => {
      if (pointers.size !== 2) return null;
      const [[x1, y1], [x2, y2]] = pointers.values();
      return { x: (x1 + x2) / 2, y: (y1 + y2) / 2, distance: Math.hypot(x1 - x2, y1 - y2) || 1 };
    };
    const setLasso = (on) => {
      byId("lasso").setAttribute("aria-pressed", on);
      canvas.classList.toggle("drawing", on);
    };
    const isLassoOn = () => byId("lasso").getAttribute("aria-pressed") === "true";
    const hold = (behaviour) => {
      state.held = behaviour;
      page.markChanged();
    };

    // ---- Pointer and wheel

    const release = (event) => {
      pointers.delete(event.pointerId);
      pinch = pinched();
      canvas.classList.remove("moving");
    };
    const drag = (last, now) => {
      canvas.classList.add("moving");
      state.hover = -1;
      const after = pinched();
      let [dx, dy] = [now[0] - last[0], now[1] - last[1]];
      if (pinch && after) {
        Object.assign(view, view.zoomed(after.distance / pinch.distance, after.x, after.y));
        [dx, dy] = [after.x - pinch.x, after.y - pinch.y];
        pinch = after;
      }
      view.move({ x: view.x - dx / view.scale, y: view.y - dy / view.scale, scale: view.scale });
    };
    const endLasso = () => {
      const { lasso } = state;
      isDrawing = false;
      state.lasso = null;
      setLasso(false);
      if (lasso.length > 2) page.select(data.inside(lasso));
      else page.markChanged();
    };
    const tap = (event, behaviour) => {
      const isTouch = event.pointerType === "touch";
      if (behaviour < 0 || (isTouch && behaviour !== state.held)) return hold(behaviour);
      if (event.ctrlKey || event.metaKey) return window.open(data.page(behaviour), "_blank", "noopener");
      const open = () => (location.href = data.page(behaviour));
      if (isTouch) return open();
      // A second click means to zoom, not to open.
      clearTimeout(opening);
      opening = setTimeout(open, DOUBLE_CLICK);
    };

    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      view.stop();
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, position(event));
      travelled = 0;
      isDrawing = pointers.size === 1 && (event.shiftKey || isLassoOn());
      state.lasso = isDrawing ? [view.toData(position(event))] : null;
      pinch = pinched();
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = position(event);
      const last = pointers.get(event.pointerId);
      if (!last) {
        const behaviour = event.pointerType === "touch" || isLassoOn() ? -1 : page.behaviourAt(now);
        canvas.classList.toggle("on", behaviour >= 0);
        if (behaviour !== state.hover) page.setHover(behaviour);
        return;
      }
      travelled += Math.hypot(now[0] - last[0], now[1] - last[1]);
      pointers.set(event.pointerId, now);
      if (isDrawing) {
        state.lasso.push(view.toData(now));
        page.markChanged();
      } else if (travelled >= STILL) drag(last, now);
    });
    canvas.addEventListener("pointerup", (event) => {
      const isTap = pointers.size === 1 && travelled < STILL;
      const behaviour = isTap && !event.shiftKey ? page.behaviourAt(position(event)) : -1;
      release(event);
      if (isDrawing) endLasso();
      else if (isTap) tap(event, behaviour);
    });
    canvas.addEventListener("pointercancel", (event) => {
      state.lasso = null;
      isDrawing = false;
      release(event);
      page.markChanged();
    });
    canvas.addEventListener("pointerleave", () => page.setHover(-1));

    const wheel = (event) => {
      event.preventDefault();
      view.stop();
      const by = event.deltaY * (event.deltaMode ? 18 : 1) * (event.ctrlKey ? 5 : 1);
      view.move(view.zoomed(Math.exp(-Math.min(Math.max(by, -300), 300) * 0.0022), ...position(event)));
    };
    canvas.addEventListener("wheel", wheel, { passive: false });
    canvas.addEventListener("dblclick", (event) => {
      clearTimeout(opening);
      view.animate(view.zoomed(event.altKey ? 0.5 : 2, ...position(event)));
    });

    // ---- Buttons and keys

    const zoom = (factor) => view.animate(view.zoomed(factor, view.width / 2, view.height / 2));
    const pan = ([dx, dy]) =>
      view.animate({
        x: view.x + (dx * view.width * PAN_SHARE) / view.scale,
        y: view.y + (dy * view.height * PAN_SHARE) / view.scale,
        scale: view.scale,
      });
    const selectView = () => {
      page.selectView();
      byId("chosen-title").focus();
    };
    const clear = () => {
      Object.assign(state, { lasso: null, held: -1, hover: -1 });
      isDrawing = false;
      setLasso(false);
      page.select(null);
    };
    byId("nearer").addEventListener("click", () => zoom(STEP));
    byId("farther").addEventListener("click", () => zoom(1 / STEP));
    byId("whole").addEventListener("click", view.showAll);
    byId("lasso").addEventListener("click", () => setLasso(!isLassoOn()));
    byId("list").addEventListener("click", selectView);
    byId("clear").addEventListener("click", () => {
      clear();
      canvas.focus();
    });

    const KEYS = new Map([
      ["+", () => zoom(STEP)],
      ["=", () => zoom(STEP)],
      ["-", () => zoom(1 / STEP)],
      ["_", () => zoom(1 / STEP)],
      ["0", view.showAll],
      ["Enter", selectView],
      ...Object.entries(PAN).map(([key, direction]) => [key, () => pan(direction)]),
    ]);
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !KEYS.has(event.key)) return;
      KEYS.get(event.key)();
      event.preventDefault();
      event.stopPropagation();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !/^(INPUT|DIALOG)$/.test(event.target.tagName)) clear();
    });

    // ---- Colour, layers, and the word to highlight

    for (const choice of document.querySelectorAll("input[name=by]")) {
      choice.addEventListener("change", () => {
        state.colourBy = choice.value;
        page.recolour();
      });
    }

    const boxes = data.layers.map(([layer], index) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.setAttribute("aria-label", `Layer ${layer}`);
      label.append(box, document.createElement("i"), String(layer));
      box.addEventListener("change", () => {
        data.shown[index] = box.checked ? 1 : 0;
        page.dotsChanged();
      });
      byId("layers").insertBefore(label, byId("sets"));
      return box;
    });
    const showAllLayers = (on) => {
      data.shown.fill(on ? 1 : 0);
      for (const box of boxes) box.checked = on;
      page.dotsChanged();
    };
    byId("all").addEventListener("click", () => showAllLayers(true));
    byId("none").addEventListener("click", () => showAllLayers(false));

    let typing;
    const search = () => {
      const query = byId("word").value;
      const address = query.trim() ? `?q=${encodeURIComponent(query.trim())}` : "";
      history.replaceState(null, "", location.pathname + address);
      page.highlightWord(query);
    };
    byId("word").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(search, 150);
    });
    byId("light").addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(typing);
      search();
    });
  };
}
