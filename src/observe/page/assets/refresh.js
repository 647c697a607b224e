// Replaces the content of the page every few seconds. The page is complete without it.
"use strict";

(() => {
  const SECONDS = 5;
  const place = document.getElementById("refresh");
  if (!place || !place.hasAttribute("data-refresh")) return;

  // A reader who has paused stays paused on the next page of this tab.
  let paused = sessionStorage.getItem("paused") === "yes";
  let running = false;

  const button = document.createElement("button");
  button.type = "button";
  const message = document.createElement("span");
  message.setAttribute("role", "status");
  place.replaceChildren(message, button);

  const show = (text, isStale) => {
    if (message.textContent !== text) message.textContent = text;
    message.classList.toggle("stale", isStale);
  };
  const showPaused = () => {
    button.textContent = paused ? "Resume" : "Pause";
    show(paused ? "Updates paused" : `Updates every ${SECONDS} s`, false);
  };

  // An element that has the focus is found again by its id, or else by its link or name.
  const selector = (element) => {
    if (!element || element === document.body) return null;
    if (element.id) return `#${CSS.escape(element.id)}`;
    for (const attribute of ["href", "name"]) {
      const value = element.getAttribute(attribute);
      if (value) return `${element.localName}[${attribute}="${CSS.escape(value)}"]`;
    }
    return null;
  };

  // Nothing is replaced under a reader who types, or who has selected text to copy it.
  const isBusy = (main) => {
    const focused = document.activeElement;
    const isTyping = main.contains(focused) && focused.matches("input, select, textarea");
    const selection = document.getSelection();
    return isTyping || (selection && !selection.isCollapsed && main.contains(selection.anchorNode));
  };

  const replace = (text) => {
    const main = document.querySelector("main");
    const next = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    if (!next) throw new Error("the response has no content");
    if (isBusy(main) || next.innerHTML === main.innerHTML) return;
    const focused = main.contains(document.activeElement) ? selector(document.activeElement) : null;
    const scrolled = [...main.querySelectorAll(".scroll")].map((element) => element.scrollLeft);
    main.replaceChildren(...document.importNode(next, true).childNodes);
    main.querySelectorAll(".scroll").forEach((element, at) => { element.scrollLeft = scrolled[at] ?? 0; });
    if (focused) main.querySelector(focused)?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    if (paused || running || document.hidden) return;
    running = true;
    try {
      const response = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(30000) });
      const text = await response.text();
      if (paused) return;
      if (!response.ok) throw new Error(`status ${response.status}`);
      replace(text);
      document.body.classList.remove("is-stale");
      showPaused();
    } catch (error) {
      const since = place.dataset.updated || "";
      show(`No response from the daemon; this page is of ${since}`, true);
      document.body.classList.add("is-stale");
      return;
    } finally {
      running = false;
    }
    place.dataset.updated = new Date().toLocaleTimeString();
  };

  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    showPaused();
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  place.dataset.updated = new Date().toLocaleTimeString();
  showPaused();
  setInterval(refresh, SECONDS * 1000);
})();
