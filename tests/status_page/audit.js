// Returns what is wrong with the page that is shown: contrast, overflow, names of controls.
(() => {
  const problems = [];

  // Colors of any notation as red, green, blue and alpha, by painting them.
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const cache = new Map();
  const parse = (color) => {
    if (!cache.has(color)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
      cache.set(color, { red, green, blue, alpha: alpha / 255 });
    }
    return cache.get(color);
  };
  const luminance = ({ red, green, blue }) => {
    const [r, g, b] = [red, green, blue].map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.alpha === 1) return color;
    }
    return parse(getComputedStyle(document.documentElement).colorScheme.includes("dark") ? "black" : "white");
  };
  const name = (element) => `${element.localName}.${element.className.baseVal ?? element.className}: ${element.textContent.trim().slice(0, 40)}`;

  // WCAG 2.2 AA: 4.5 for text, 3 for large text.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || seen.has(element)) continue;
    seen.add(element);
    const style = getComputedStyle(element);
    if (style.visibility === "hidden" || !element.getClientRects().length) continue;
    const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && parseInt(style.fontWeight) >= 700);
    const ratio = contrast(parse(style.color), background(element));
    if (ratio < (isLarge ? 3 : 4.5)) problems.push(`contrast ${ratio.toFixed(2)} of ${name(element)}`);
  }

  const root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth) problems.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
  for (const element of document.querySelectorAll("a, button, input")) {
    const label = element.labels?.[0]?.textContent ?? element.textContent ?? "";
    if (!label.trim() && !element.getAttribute("aria-label") && element.type !== "hidden") problems.push(`no name: ${element.outerHTML}`);
  }
  const style = [...document.styleSheets].reduce((rules, sheet) => rules + sheet.cssRules.length, 0);
  if (style < 50) problems.push("the stylesheet is not applied");
  return problems;
})()
