// The data of the map: where each behaviour is, what it is called, and which are near a place or inside a line.
"use strict";

{
  const CELLS = 128; // across the map, to find what is near
  const labels = new Map(); // by layer,
  const texts = new Map(); // by block of behaviours: they come when asked for

  Atlas.labels = (layer, found) => labels.set(layer, found);
  Atlas.texts = (block, found) => texts.set(block, found);

  // Numbers of 16 bits from base64, the least byte first.
  const unpack = (text) => {
    const bytes = Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const numbers = new Uint16Array(bytes.length / 2);
    for (let i = 0; i < numbers.length; i++) numbers[i] = view.getUint16(2 * i, true);
    return numbers;
  };

  const cellOf = (share) => Math.min(CELLS - 1, Math.max(0, Math.trunc(share * CELLS)));

  // What map/points.js holds. Behaviours have indices from zero, places lie in a square of width 1, NaN for none.
  Atlas.MapData = class {
    #block;
    #starts = []; // of each unit the index of its first behaviour, and behind the last unit the total
    #units = []; // of each unit: its layer's index, its number in the layer
    #cellStarts = new Int32Array(CELLS * CELLS + 1); // where a cell's behaviours begin in #cellItems
    #cellItems;

    constructor(data) {
      const places = unpack(data.places);
      this.total = places.length / 2;
      this.layers = data.layers;
      this.words = data.words;
      this.tokens = data.tokens; // names of output neurons, which are of one layer
      this.x = new Float32Array(this.total);
      this.y = new Float32Array(this.total);
      this.unitOf = new Int32Array(this.total);
      this.layerOf = new Uint16Array(this.total);
      this.effective = new Float32Array(this.total); // of its unit
      this.shown = new Uint8Array(data.layers.length).fill(1); // which layers are there to be seen and found
      this.#block = data.block;
      this.#readUnits(unpack(data.counts), unpack(data.effective));
      this.#readPlaces(places);
      this.#sortIntoCells();
      this.bounds = this.boundsOf(this.#cellItems);
    }

    #readUnits(counts, effective) {
      let behaviour = 0;
      this.layers.forEach(([, units], layer) => {
        for (let number = 0; number < units; number++) {
          const unit = this.#units.length;
          const end = behaviour + counts[unit];
          this.#starts.push(behaviour);
          this.#units.push([layer, number]);
          this.unitOf.fill(unit, behaviour, end);
          this.layerOf.fill(layer, behaviour, end);
          this.effective.fill(effective[unit] / 100, behaviour, end);
          behaviour = end;
        }
      });
      this.#starts.push(behaviour);
    }

    #readPlaces(places) {
      const steps = Atlas.constants.mapSteps;
      const share = (place) => (place > steps ? NaN : place / steps);
      for (let i = 0; i < this.total; i++) {
        this.x[i] = share(places[2 * i]);
        this.y[i] = share(places[2 * i + 1]);
      }
    }

    isPlaced(index) {
      return !Number.isNaN(this.x[index]);
    }

    // ---- Behaviours by index

    numberInUnit(index) {
      return index - this.#starts[this.unitOf[index]] + 1;
    }

    siblings(index) {
      const unit = this.unitOf[index];
      return this.#starts[unit + 1] - this.#starts[unit];
    }

    unitName(index) {
      const [, number] = this.#units[this.unitOf[index]];
      return this.tokens?.[number] ?? this.#unitId(index);
    }

    #unitId(index) {
      const [layer, number] = this.#units[this.unitOf[index]];
      return `L${this.layers[layer][0]}/N${number}`;
    }

    page(index) {
      return `${this.#unitId(index)}.html#b${this.numberInUnit(index)}`;
    }

    // `L3/N512.b2` is one behaviour; `L3/N512` all of a unit's.
    named(text) {
      const match = /^L(\d+)\/N(\d+)(?:[.#]b(\d+))?$/.exec(text);
      const found = { behaviours: [], isOne: match?.[3] !== undefined };
      if (!match) return found;
      const [, layerName, unitNumber, behaviourNumber] = match;
      const unit = this.#units.findIndex(
        ([layer, number]) => this.layers[layer][0] === Number(layerName) && number === Number(unitNumber),
      );
      for (let i = this.#starts[unit]; unit >= 0 && i < this.#starts[unit + 1]; i++) {
        if (!found.isOne || this.numberInUnit(i) === Number(behaviourNumber)) found.behaviours.push(i);
      }
      return found;
    }

    label(index) {
      const [layer, number] = this.#units[this.unitOf[index]];
      const ofLayer = labels.get(this.layers[layer][0]);
      return ofLayer ? Atlas.visible(ofLayer[number]?.[this.numberInUnit(index) - 1] ?? "") : "";
    }

    hasAllLabels() {
      return labels.size >= this.layers.length;
    }

    // The labels of some behaviours, or of all.
    loadLabels(behaviours) {
      const wanted = new Set(behaviours ? behaviours.map((i) => this.layerOf[i]) : this.layers.keys());
      return Promise.all(Array.from(wanted, (layer) => Atlas.load(`search/l${this.layers[layer][0]}.js`)));
    }

    labelled(part) {
      const found = [];
      for (let i = 0; i < this.total; i++) if (this.label(i).toLowerCase().includes(part)) found.push(i);
      return found;
    }

    // Label, what stands before the key token of an example, the token, and what stands after it.
    text(index) {
      return texts.get(Math.floor(index / this.#block))?.[index % this.#block];
    }

    loadText(index) {
      return Atlas.load(`search/x${Math.floor(index / this.#block)}.js`);
    }

    // ---- Finding what is where

    #sortIntoCells() {
      const starts = this.#cellStarts;
      const cells = new Int32Array(this.total);
      for (let i = 0; i < this.total; i++) {
        cells[i] = this.isPlaced(i) ? cellOf(this.y[i]) * CELLS + cellOf(this.x[i]) : -1;
        if (cells[i] >= 0) starts[cells[i] + 1]++;
      }
      for (let cell = 0; cell < CELLS * CELLS; cell++) starts[cell + 1] += starts[cell];
      this.#cellItems = new Int32Array(starts[CELLS * CELLS]);
      const next = starts.slice();
      for (let i = 0; i < this.total; i++) if (cells[i] >= 0) this.#cellItems[next[cells[i]]++] = i;
    }

    // Calls `visit` with each behaviour of the shown layers in the cells that a box touches.
    #visitCells([left, top, right, bottom], visit) {
      for (let row = cellOf(top); row <= cellOf(bottom); row++) {
        for (let column = cellOf(left); column <= cellOf(right); column++) {
          const cell = row * CELLS + column;
          for (let at = this.#cellStarts[cell]; at < this.#cellStarts[cell + 1]; at++) {
            const index = this.#cellItems[at];
            if (this.shown[this.layerOf[index]]) visit(index);
          }
        }
      }
    }

    // −1 where none is in reach.
    nearest(x, y, reach, highlighted) {
      let nearest = -1;
      let least = reach * reach;
      this.#visitCells([x - reach, y - reach, x + reach, y + reach], (i) => {
        // Highlighted ones are meant before others.
        const weight = highlighted && !highlighted[i] ? 9 : 1;
        const distance = ((this.x[i] - x) ** 2 + (this.y[i] - y) ** 2) * weight;
        if (distance < least) {
          least = distance;
          nearest = i;
        }
      });
      return nearest;
    }

    // Behaviours within a polygon, a list of [x, y].
    inside(polygon) {
      const xs = polygon.map(([x]) => x);
      const ys = polygon.map(([, y]) => y);
      const found = [];
      this.#visitCells([Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)], (index) => {
        const x = this.x[index];
        const y = this.y[index];
        let isInside = false;
        for (let i = 0, j = xs.length - 1; i < xs.length; j = i++) {
          const crosses = ys[i] > y !== ys[j] > y && x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i];
          if (crosses) isInside = !isInside;
        }
        if (isInside) found.push(index);
      });
      return found;
    }

    // [left, top, right, bottom]; the left beyond the right where none of them has a place.
    boundsOf(behaviours) {
      let [left, top, right, bottom] = [1, 1, 0, 0];
      for (const i of behaviours) {
        if (!this.isPlaced(i)) continue;
        left = Math.min(left, this.x[i]);
        top = Math.min(top, this.y[i]);
        right = Math.max(right, this.x[i]);
        bottom = Math.max(bottom, this.y[i]);
      }
      return [left, top, right, bottom];
    }
  };
}
