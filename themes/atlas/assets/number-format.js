// Numbers as people read them, to the letter as the builder writes them.
"use strict";

{
  // As the builder's `percent` and `number` write them: of two numbers as near, Python takes the even one.
  Atlas.percent = (value) => {
    if (value > 0 && value <= 0.005) return "<1%";
    if (value >= 0.995 && value < 1) return ">99%";
    const whole = Math.round(value * 100);
    const isTie = (value * 100) % 1 === 0.5;
    return `${isTie && whole % 2 ? whole - 1 : whole}%`;
  };
  const significantDigits = (text) => text.replace(/e.*|\D/g, "").replace(/^0+/, "");
  const rounded = (value, digits) => {
    const isTie = /^50*$/.test(significantDigits(value.toPrecision(60)).slice(digits));
    const nearer = (value * (1 - 1e-12)).toPrecision(digits); // to zero
    const isEven = "02468".includes(nearer.replace(/e.*/, "").slice(-1));
    return Number(isTie && isEven ? nearer : value.toPrecision(digits));
  };
  Atlas.number = (value, digits) => {
    const near = rounded(value, digits);
    const size = Math.abs(near);
    const isPlain = size === 0 || (size >= 1e-4 && size < 10 ** digits);
    const text = isPlain ? String(near) : near.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
    return text.replaceAll("-", "−");
  };
}
